"""What every test can count on: no network, no colours, one width of terminal, the same examples in every run."""

from __future__ import annotations

import logging
import os
import signal
import struct
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from loopback_hub import LoopbackHub
from PIL import Image

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
# Each changes what rich, typer or click print; typer reads GITHUB_ACTIONS to force colours.
TERMINAL = ("NO_COLOR", "FORCE_COLOR", "PY_COLORS", "COLUMNS", "LINES", "TERMINAL_WIDTH", "GITHUB_ACTIONS")

# The hub and typer read the environment once, when they are imported, so it is set here, before any test is collected;
# a fixture alone would come too late. Processes that a test starts inherit it.
os.environ.update(OFFLINE)
for variable in TERMINAL:
    os.environ.pop(variable, None)
# One thread: tests are tiny, and threads that wait for one another are slow when anything else runs beside them.
os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})

# Whoever starts the tests in the background may have them ignore Ctrl-C, which some of them send.
signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("vitrail", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("vitrail")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The same environment at the start of every test, whatever the one before it left."""
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    for name in TERMINAL:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _clean_log() -> Generator[None]:
    """The library's logger as it was, also after a test of the command's `main`, which lets it write to stderr."""
    logger = logging.getLogger("vitrail")
    before = [*logger.handlers], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


@pytest.fixture
def data_folder() -> Callable[[str], Path]:
    """`data_folder("mnist")` is the path of $VITRAIL_DATA/mnist; without it the test is skipped, with the reason."""

    def find(name: str) -> Path:
        root = os.environ.get("VITRAIL_DATA")
        if not root:
            pytest.skip(f"needs the data set {name}; set VITRAIL_DATA to the folder that holds it")
        folder = Path(root, name)
        if not folder.is_dir():
            pytest.skip(f"needs the data set {name}, which is not in VITRAIL_DATA={root}")
        return folder

    return find


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on digits that is right nine times of ten; shared by all tests, so copy it to change it."""
    from vitrail import api

    settings = {"model.embed_dim": 32, "model.depth": 1, "training.batch_size": 32, "training.log_steps": 10}
    settings |= {"training.learning_rate": 1e-2, "training.ema_decay": 0.0, "evaluation.report": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vitrail.reporting.run_figures.NUM_SHOWN", 3)
        return api.train("digits", epochs=4, settings=settings, out=tmp_path_factory.mktemp("runs") / "digits").path


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """Settings of a training that takes a fraction of a second, and still learns something."""
    return {
        "model.embed_dim": 16,
        "model.depth": 1,
        "training.batch_size": 16,
        "training.log_steps": 2,
        "training.learning_rate": 0.03,
        "training.warmup_rate": 0.0,
        "data.augment.shift_pixels": 0,
        "data.augment.rotate_degrees": 0,
        "evaluation.report": False,
    }


def _save_blank(figure: object, path: Path) -> Path:
    """A blank figure in the place of one: rendering is most of the time of a small training."""
    from matplotlib.figure import Figure

    from vitrail.figures import save_figure

    return save_figure(Figure(figsize=(0.1, 0.1)), path)


class _Unrendered:
    """Our figures, made as ever but saved blank."""

    save_figure = staticmethod(_save_blank)

    def __getattr__(self, name: str) -> Any:
        from vitrail import figures

        return getattr(figures, name)


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings and inspections whose figures are saved blank, and show three images where they show forty."""
    from vitrail.inspecting import inspection
    from vitrail.reporting import multilabel_figures, run_figures

    monkeypatch.setattr(run_figures, "NUM_SHOWN", 3)
    for module in (run_figures, multilabel_figures):
        monkeypatch.setattr(module, "figures", _Unrendered())
    monkeypatch.setattr(inspection, "save_figure", _save_blank)


@pytest.fixture
def quick(unrendered: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings and inspections that render no figures, write no report, and do not wait for the disk."""
    monkeypatch.setattr("vitrail.session.report_training", lambda *told: None)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="session")
def write_idx() -> Callable[..., Path]:
    """`write_idx(folder)`: the four IDX files of 60 training and 30 test images, 8x8, a bright bar for each class."""

    def write(folder: Path, num_train: int = 60, num_test: int = 30, num_classes: int = 3, seed: int = 0) -> Path:
        numbers = np.random.default_rng(seed)
        folder.mkdir(parents=True, exist_ok=True)
        for split, count in (("train", num_train), ("t10k", num_test)):
            labels = (np.arange(count) % num_classes).astype(np.uint8)
            pixels = numbers.integers(0, 100, (count, 8, 8), dtype=np.uint8)
            pixels[np.arange(count), 2 * labels] += 150
            for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
                header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
                (folder / f"{split}-{kind}-ubyte").write_bytes(header + array.tobytes())
        return folder

    return write


@pytest.fixture(scope="session")
def write_photo() -> Callable[..., Path]:
    """`write_photo(path, seed)`: a small photograph of noise, equal for equal seeds, in the format of its suffix."""

    def write(path: Path, seed: int = 0, size: tuple[int, int] = (12, 16), mode: str = "RGB") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = size if mode == "L" else (*size, 3)
        pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture(scope="session")
def write_tree(write_photo: Callable[..., Path]) -> Callable[..., Path]:
    """`write_tree(root, {"ant": 5, "bee": 6})`: that many different images in each folder; seeds count up."""

    def write(root: Path, counts: Mapping[str, int], suffix: str = ".png", first: int = 0) -> Path:
        seed = first
        for folder, count in counts.items():
            for number in range(count):
                write_photo(root / folder / f"{number:03d}{suffix}", seed)
                seed += 1
        return root

    return write


@pytest.fixture(scope="session")
def digit_images() -> np.ndarray:
    """The scanned digits that come with scikit-learn: (1797, 8, 8) uint8."""
    from vitrail.data.named import read_digits

    return read_digits().pixels[..., 0]


@pytest.fixture
def files_of_at_most() -> Callable[[int], AbstractContextManager[None]]:
    """`with files_of_at_most(1000):` no file of this process can grow beyond so many bytes, as on a full disk."""
    resource = pytest.importorskip("resource", reason="file sizes cannot be limited on Windows")

    @contextmanager
    def limit(num_bytes: int) -> Generator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[LoopbackHub]:
    """A hub on this machine, with an empty cache, for this process and for those it starts."""
    import huggingface_hub
    from huggingface_hub import constants

    cache = tmp_path / "hub-cache"
    with LoopbackHub().serving() as served:
        settings = {
            "HF_ENDPOINT": served.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(cache),
            "HF_HUB_DISABLE_XET": "1",  # large files over plain HTTP
            "HF_HUB_DISABLE_SYMLINKS_WARNING": "1",
            "NO_PROXY": "127.0.0.1",
            "TORCH_HOME": str(cache / "torch"),
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        # They were read when the hub's library was imported.
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        huggingface_hub.close_session()
        yield served
        huggingface_hub.close_session()
