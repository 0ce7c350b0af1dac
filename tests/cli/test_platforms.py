"""What may differ between machines: paths, encodings, how processes start, and GPUs that are not here."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import vitrail as api
from vitrail.engines.pytorch import resolve_device
from vitrail.errors import ConfigError, TrainingError
from vitrail.training.loop import Training

PHOTOS, RUN = "Fotos für Jürgen", "Läufe/erster Lauf 犬"


def make_photos(folder):
    numbers = np.random.default_rng(0)
    for kind, low in (("Größe 1", 0), ("犬", 120)):
        (folder / kind).mkdir(parents=True)
        for index in range(12):
            image = Image.fromarray(numbers.integers(low, low + 100, (8, 8), dtype=np.uint8))
            image.save(folder / kind / f"ñ {index}.png")


def python(*arguments, folder, **environment):
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTHON"))}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=kept | environment, capture_output=True)


def test_class_folders_and_runs_of_any_name(vitrail, tiny):
    make_photos(Path(PHOTOS))
    settings = [f"--set={key}={value}" for key, value in tiny.items()]
    done = vitrail("train", PHOTOS, "--epochs=1", *settings, "--out", RUN, "--json")
    assert (done.code, done.json["run"]) == (0, RUN)
    assert [row["class"] for row in done.json["test"]["per_class"]] == ["Größe 1", "犬"]
    done = vitrail("predict", RUN, PHOTOS, "--output", "Läufe/alle.csv")
    assert done.code == 0
    assert f"{PHOTOS}/犬/ñ 3.png" in Path("Läufe/alle.csv").read_text(encoding="utf-8").replace("\\", "/")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "encoding"),
    [({"LC_ALL": "C"}, "utf-8"), ({"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}, "ascii")],
    ids=["C", "an ASCII pipe"],
)
def test_names_in_other_locales(tmp_path, tiny, environment, encoding):
    make_photos(tmp_path / PHOTOS)
    settings = [f"--set={key}={value}" for key, value in tiny.items()]
    command = ("-c", "from vitrail.cli import main; main()")
    if encoding == "ascii":
        environment = environment | {"LC_ALL": "C.UTF-8"}
    done = python(*command, "train", PHOTOS, "--epochs=1", *settings, "--out", RUN, folder=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    last = done.stdout.decode(encoding).splitlines()[-1]
    assert last.endswith(f"are in {RUN}" if encoding == "utf-8" else r"are in L\xe4ufe/erster Lauf \u72ac")
    done = python(*command, "predict", RUN, PHOTOS, folder=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    assert ("Größe 1" if encoding == "utf-8" else r"Gr\xf6\xdfe 1") in done.stdout.decode(encoding)


@pytest.mark.slow
def test_a_script_without_a_main_guard_under_spawn(tmp_path, tiny):
    # As on macOS and Windows: had training worker processes, each would run this script, and so train, once more.
    (tmp_path / "script.py").write_text(
        f"""import multiprocessing
multiprocessing.set_start_method("spawn")
import vitrail
print("begun")
run = vitrail.train("digits", epochs=1, settings={tiny!r}, out="run")
assert multiprocessing.active_children() == []
print(run.result["stopped"])
""",
        encoding="utf-8",
    )
    done = python("script.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().split() == ["begun", "done"]


# Apple's GPUs, as far as can be told without one


def test_mps_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"^device='mps' is not there: .*; use auto or cpu$"):
        resolve_device("mps")


class Doubles(TorchDispatchMode):
    """Notes which functions of Vitrail make float64 tensors, which MPS does not have."""

    def __init__(self):
        super().__init__()
        self.makers = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float64 for leaf in tree_leaves(made)):
            frame = sys._getframe()
            while "vitrail" not in Path(frame.f_code.co_filename).parts:
                frame = frame.f_back
            self.makers.add(frame.f_code.co_name)
        return made


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adam", "sgd"])
def test_training_makes_no_float64_on_the_device(tmp_path, tiny, monkeypatch, quick, optimizer):
    settings = tiny | {"training.optimizer": optimizer, "training.ema_decay": 0.9, "training.label_smoothing": 0.1}
    settings |= {"data.augment.shift_pixels": 1, "data.augment.flip_rate": 0.5, "data.augment.erase_rate": 0.5}
    settings |= {"data.augment.mixup_alpha": 0.4, "data.augment.color_jitter": 0.3, "data.augment.cutmix_rate": 0.5}
    settings |= {"training.batch_size": 256, "model.drop_path_rate": 0.1}
    doubles, run = Doubles(), Training.run

    def watched(training, report):
        with doubles:
            return run(training, report)

    monkeypatch.setattr(Training, "run", watched)
    api.train("digits", epochs=1, settings=settings, out=tmp_path / "run", device="cpu")
    assert doubles.makers  # it does see those made on the CPU by purpose:
    assert doubles.makers <= {"draw_mixup", "draw_cutmix", "validate"}


def test_too_little_memory_on_mps_is_one_sentence(tmp_path, tiny, monkeypatch):
    def run(training, report):
        raise RuntimeError("MPS backend out of memory (MPS allocated: 8.9 GB, other allocations: 256 KB)")

    monkeypatch.setattr(Training, "run", run)
    with pytest.raises(TrainingError, match=r"^There is not enough memory for .* with training\.batch_size=16; lower"):
        api.train("digits", epochs=1, settings=tiny, out=tmp_path / "run")
