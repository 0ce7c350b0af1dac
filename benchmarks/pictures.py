"""The README's pictures of what `inspect`, `explain` and `report` show, in docs/images/.

inspect.png is the paper's figure 7 of a plain ViT with patches of 4x4 on MNIST; explain.png and report.png are of
`vitrail train mnist`: test images under their evidence, and parts of the report as Chromium shows it. Runs that are
named are taken; others are trained first. Needs VITRAIL_DATA to hold mnist/, and chromium for report.png.
"""
# Matplotlib leaves its keyword arguments open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from command import run_vitrail
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

import vitrail
from vitrail.data.sources import open_dataset
from vitrail.engines.pytorch import TorchEngine
from vitrail.figures import save_figure, style
from vitrail.figures.grid import image_panel
from vitrail.figures.mosaic import mosaic
from vitrail.figures.positions import draw_positions
from vitrail.interpretation.filters import first_filters
from vitrail.interpretation.positions import position_similarity

PICTURES = Path(__file__).parents[1] / "docs" / "images"
# The recipe's model has a convolutional stem; the paper's projects patches. Positions begin at zero, so that a few
# minutes show what is learned of them rather than what they began with.
PLAIN = ("stem=linear", "patch_size=4", "depth=6", "num_heads=4", "pos_embed_std=0")
METHOD = "occlusion"  # the default of small images
PAIRS = ((3, 8), (4, 9), (7, 1), (5, 6), (8, 3), (9, 4), (2, 7), (0, 6))  # a digit, and what it might be taken for
PARTS = ("", "answers", "inside")  # of the report: its top, and sections
PART_SIZE, GAP = (540, 930), 12  # pixels, as of a large phone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inspected", metavar="RUN", type=Path, help="the run of inspect.png; default: trained")
    parser.add_argument("--explained", metavar="RUN", type=Path, help="the run of the others; default: trained")
    parser.add_argument("--only", nargs="+", choices=("inspect", "explain", "report"), help="these pictures alone")
    options = parser.parse_args()
    wanted = options.only or ("inspect", "explain", "report")
    with tempfile.TemporaryDirectory() as scratch:
        if "inspect" in wanted:
            settings = (part for setting in PLAIN for part in ("--set", f"model.{setting}"))
            run = options.inspected or _trained(Path(scratch, "plain"), *settings)
            save_figure(_inside(run), PICTURES / "inspect.png")
        if {"explain", "report"} & {*wanted}:
            run = options.explained or _trained(Path(scratch, "mnist"))
            if "explain" in wanted:
                save_figure(_evidence(run), PICTURES / "explain.png")
            if "report" in wanted:
                _photograph(run, PICTURES / "report.png")


def _trained(run: Path, *arguments: str) -> Path:
    run_vitrail("train", "mnist", *arguments, "--out", str(run))
    return run


def _inside(run: Path) -> Figure:
    """Filters, positions and attention distance side by side."""
    engine = vitrail.load(run).engine
    assert isinstance(engine, TorchEngine)
    with tempfile.TemporaryDirectory() as folder:
        attention = vitrail.inspect(run, output=folder).numbers["attention_distance"]
    filters, positions = first_filters(engine.model), position_similarity(engine.model)
    figure = style.new_figure(10.6, 3.75)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    left, middle, right = figure.subplots(1, 3)

    tiles = filters.pictures.squeeze(-1) if filters.pictures.shape[-1] == 1 else filters.pictures
    columns = int(np.ceil(np.sqrt(len(tiles))))
    picture, _, _ = mosaic(tiles, columns, (8, 8), (6, 6), fill=1.0, frame=0.75)
    left.imshow(picture, cmap="gray", vmin=0, vmax=1)
    left.set_axis_off()
    of_places = draw_positions(positions.similarity, positions.step).axes[0]
    image = of_places.images[0]
    shown = middle.imshow(np.asarray(image.get_array()), cmap=image.get_cmap(), clim=image.get_clim())
    for write, axis in ((middle.set_xticks, of_places.xaxis), (middle.set_yticks, of_places.yaxis)):
        write(axis.get_ticklocs(), [label.get_text() for label in axis.get_ticklabels()])
    bar = figure.colorbar(shown, ax=middle, shrink=0.78, aspect=24, pad=0.02, ticks=[-1, -0.5, 0, 0.5, 1])
    bar.ax.tick_params(labelsize=style.SMALL_SIZE, colors=style.INK, length=2)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]  # a spine, which matplotlib types as a property
    distances = np.array(attention["pixels"])
    layers = np.repeat(np.arange(len(distances)), distances.shape[1])
    right.plot(layers, distances.ravel(), "o", color=style.TRAIN, alpha=0.6, markersize=6, markeredgewidth=0)
    right.axhline(attention["uniform"], color=style.VALIDATION, linewidth=1.4, linestyle="--")
    right.set_ylim(0, 1.12 * max(float(distances.max()), attention["uniform"]))
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set_box_aspect(1)
    for axes, title, names in (
        (left, "Principal components of the filters", ("", "")),
        (middle, "Similarity of position embeddings", ("input patch column", "input patch row")),
        (right, "Mean attention distance", ("layer", "pixels; dashed: attending to all alike")),
    ):
        style.tidy(axes)
        axes.set_title(title, loc="left", **style.text_style(style.HEADING_SIZE))
        axes.set_xlabel(names[0], **style.text_style())
        axes.set_ylabel(names[1], **style.text_style())
        axes.set_anchor("N")
    middle.spines[:].set_visible(False)
    middle.tick_params(length=0)
    return figure


def _evidence(run: Path) -> Figure:
    """The first test images of some digits, under what speaks for each, and for it rather than another."""
    classifier = vitrail.load(run)
    test = open_dataset("mnist").read("test")
    figure = style.new_figure(10.6, 4.5)
    figure.set_layout_engine("constrained", w_pad=0.04, h_pad=0.03)
    grid = figure.subplots(3, len(PAIRS))
    for (digit, other), column in zip(PAIRS, grid.T, strict=True):
        pixels = test.pixels[int(np.flatnonzero(test.labels == digit)[0])]
        alone = classifier.explain(pixels, METHOD, str(digit))
        contrasted = classifier.explain(pixels, METHOD, str(digit), str(other))
        for axes, shown, text in zip(
            column,
            (pixels, alone.overlay(), contrasted.overlay()),
            ("", f"for {digit}", f"for {digit} rather than {other}"),
            strict=True,
        ):
            image_panel(axes, shown)
            axes.set_xlabel(text, **style.text_style())
    title = f"What speaks for a digit (orange) and against it (blue), by {METHOD}"
    figure.suptitle(title, x=0.008, horizontalalignment="left", **style.text_style(style.HEADING_SIZE))
    return figure


def _photograph(run: Path, path: Path) -> None:
    """Parts of the run's report, side by side, as a browser shows them on a small screen."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("report.png needs chromium; install it, or name the other pictures after --only")
    width, height = PART_SIZE
    picture = Image.new("RGB", (len(PARTS) * (width + GAP) - GAP, height), style.FAINT)
    with tempfile.TemporaryDirectory() as folder:
        page, shot = Path(folder, "report.html"), Path(folder, "report.png")
        vitrail.report(run, output=page)
        whole = page.read_text(encoding="utf-8")
        for place, name in enumerate(PARTS):
            # Headless Chromium shows nothing at an anchor, so what comes before is cut away.
            start = whole.index("<header>")
            end = whole.index(f'<section aria-labelledby="{name}">') if name else start
            page.write_text(whole[:start] + whole[end:], encoding="utf-8")
            command = [browser, "--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={folder}/profile"]
            options = [f"--window-size={width},{height}", f"--screenshot={shot}", page.as_uri()]
            subprocess.run([*command, *options], check=True, stderr=subprocess.DEVNULL)
            with Image.open(shot) as part:
                picture.paste(part.convert("RGB"), (place * (width + GAP), 0))
    picture.save(path, optimize=True)


if __name__ == "__main__":
    main()
