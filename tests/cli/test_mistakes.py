"""What a user can get wrong about `vitrail train`: one sentence on stderr, the right exit code, nothing half done."""

import gzip
import re
import signal
from pathlib import Path

import pytest


@pytest.fixture
def refused(vitrail):
    """`refused(code, ...)`: the sentence of `vitrail train ...`, the same with --json, and no run is made."""

    def run(code: int, *arguments: str) -> str:
        done = vitrail("train", *arguments)
        assert done.code == code
        assert done.out == ""
        assert not done.error.endswith(".")
        with_json = vitrail("train", *arguments, "--json")
        assert with_json.code == code
        assert with_json.err == done.err
        assert with_json.json == {"error": done.error, "exit_code": code}
        assert not list(Path.cwd().glob("**/config.json"))
        return done.error

    return run


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (["mnst"], "^No data set named 'mnst'. Did you mean 'mnist'? Names are digits, mnist"),
        (
            ["digits", "--recipe", "digts"],
            "^No recipe named 'digts'. Did you mean 'digits'? `vitrail recipes` lists them$",
        ),
        (
            ["digits", "--model", "vit_tniy"],
            "^No model named 'vit_tniy'. Did you mean 'vit_tiny_patch16_224'? `vitrail models`",
        ),
        (
            ["digits", "--set", "training.batchsize=8"],
            "'training.batchsize'. Did you mean 'training.batch_size'? `vitrail rec",
        ),
        (["digits", "--set", "batch_size=8"], "^No setting named 'batch_size'. Did you mean 'training.batch_size'?"),
        (
            ["digits", "--set", "training.epochs"],
            "^--set 'training.epochs' is not of the form key=value, such as --set tr",
        ),
        (
            [
                "digits",
                "--model",
                "vit_tiny_patch16_224",
                "--set",
                "model.image_size=30",
                "--set",
                "model.patch_size=4",
            ],
            "image_size=30 is not a multiple of .*patch_size=4; use 28 or 32, or another ",
        ),
        (
            ["digits", "--set", "model.num_heads=3"],
            "embed_dim=64 is not a multiple of .*num_heads=3; change one of them",
        ),
        (
            ["digits", "--set", "model.num_classes=5"],
            "^model.num_classes=5 disagrees with digits, which has 10 classes$",
        ),
        (
            ["digits", "--set", "training.accumulate=7"],
            "^training.batch_size=64 is not a multiple of training.accumulate=7",
        ),
        (["digits", "--device", "gpu"], "^device='gpu' is not known; use auto, cpu, cuda, cuda:N or mps$"),
        (
            ["digits", "--epochs", "3", "--set", "training.epochs=5"],
            "^training.epochs is given twice, by --epochs and as a",
        ),
        (
            ["digits", "--set", "data.source=mnist"],
            "^data.source='mnist' is not a setting of its own; give it as DATA$",
        ),
        (
            ["digits", "--set", "data.serving=mapped"],
            "^data.serving=mapped is about image files, and digits has none; leave it out$",
        ),
        (["digits", "--set", "data.memory_gigabytes=1"], "^data.memory_gigabytes=1 is about image files, and digits "),
        (
            ["digits", "--set", "data.cache_gigabytes=1"],
            "^data.cache_gigabytes=1 is about image files, and digits has ",
        ),
        (
            ["digits", "--set", "data.max_broken_rate=0.5"],
            "^data.max_broken_rate=0.5 is about image files, and digits ",
        ),
        (
            ["digits", "--set", "data.augment.crop_ratio=0.9,1.1"],
            "^data.augment.crop_ratio changes nothing without data.augment.crop_scale=0.3,1; set both, or neither$",
        ),
        (
            ["digits", "--set", "data.augment.policy_magnitude=5", "--set", "data.augment.policy=3augment"],
            "^data.augment.policy_magnitude changes nothing without data.augment.policy=randaugment; set both, or ",
        ),
        (
            ["digits", "--set", "data.augment.policy_num_ops=1"],
            "^data.augment.policy_num_ops changes nothing without data.augment.policy=randaugment; set both, or neit",
        ),
        (["digits", "--set", "model_name=s5_vit"], "^model_name is a name, .*; choose it with --model$"),
        (
            ["digits", "--resume"],
            "^There is no unfinished run below runs/ here to resume; give its directory with --out$",
        ),
    ],
)
def test_unknown_names_and_impossible_settings(refused, arguments, pattern):
    assert re.search(pattern.replace("?", "[?]").replace("(", "[(]"), refused(2, *arguments))


@pytest.mark.parametrize(
    ("assignment", "shown"),
    [
        ("training.epochs=many", "training.epochs='many'"),
        ("training.epochs=0", "training.epochs=0"),
        ("training.epochs=2.5", "training.epochs=2.5"),
        ("training.learning_rate=-1", "training.learning_rate=-1"),
        ("training.learning_rate=nan", "training.learning_rate=nan"),
        ("training.optimizer=adan", "training.optimizer='adan' is not possible. Did you mean 'adam"),
        ("training.betas=0.9", "training.betas"),
        ("data.fit=stretch", "data.fit='stretch'"),
        ("data.validation_rate=1.5", "data.validation_rate=1.5"),
        ("data.augment.flip_rate=2", "data.augment.flip_rate=2"),
        ("model.class_token=perhaps", "model.class_token='perhaps'"),
        ("model.in_chans=2", "channels=2"),
        ("seed=-1", "seed=-1"),
    ],
)
def test_wrong_types_and_ranges_name_the_setting_and_the_value(refused, assignment, shown):
    assert refused(2, "digits", "--set", assignment).startswith(shown)


@pytest.mark.parametrize(
    ("option", "value", "shown"),
    [
        ("--epochs", "0", "training.epochs=0 is not possible"),
        ("--seed", "-1", "seed=-1 is not possible"),
        ("--precision", "float16", "training.precision='float16' is not possible. Did you mean 'bfloat16'?"),
    ],
)
def test_options_are_checked_as_settings_are(refused, option, value, shown):
    assert refused(2, "digits", option, value).startswith(shown)


def test_cuda_where_there_is_none(refused):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    expected = "device='cuda' is not there: this machine has no CUDA device; use auto or cpu"
    assert refused(2, "digits", "--device", "cuda") == expected


# Data


@pytest.mark.parametrize("data", ["nowhere/photos", "photos.parquet", "scan.png", "/dev/null/x"])
def test_data_that_are_not_there(refused, data):
    assert refused(2, data).startswith(f"{data} does not exist; a data set is one of digits, mnist")


def test_data_of_no_kind_that_is_known(refused, tmp_path):
    assert refused(1, "/dev/null") == "/dev/null is neither a folder nor a file; a data set is one of these, or a name"
    (tmp_path / "empty").mkdir()
    assert refused(2, "empty").startswith(
        "empty is empty; a data set's folder holds a folder of images for each class, "
    )
    (tmp_path / "notes.txt").write_text("hello")
    assert refused(1, "notes.txt").startswith(
        "notes.txt is no table (.csv, .tsv, .jsonl, .ndjson, .parquet); a data set is one, or a folder with"
    )
    (tmp_path / "x.parquet").write_text("hello")
    assert refused(1, "x.parquet") == "x.parquet is not a Parquet file that can be read; download or write it again"


def test_a_named_set_without_its_files(refused, monkeypatch, tmp_path):
    monkeypatch.delenv("VITRAIL_DATA", raising=False)
    fetched = "mnist could not be fetched (ylecun/mnist is not in the cache, and this is offline)"
    advice = "set VITRAIL_DATA to the folder that holds mnist/"
    assert refused(2, "mnist") == f"$VITRAIL_DATA is not set, and {fetched}; {advice}"
    monkeypatch.setenv("VITRAIL_DATA", str(tmp_path))
    assert refused(2, "mnist") == f"{tmp_path}/mnist does not exist, and {fetched}; {advice}"


def test_damaged_training_images(refused, write_idx):
    images = write_idx(Path("photos")) / "train-images-idx3-ubyte"
    data = images.read_bytes()
    images.write_bytes(data[:-5])
    assert "bytes after its header, which promises" in refused(1, "photos")
    images.write_bytes(gzip.compress(data)[:-5])
    assert refused(1, "photos") == ("photos/train-images-idx3-ubyte is damaged or ends too early; download it again")
    images.unlink()
    assert refused(1, "photos").startswith("photos/train-images-idx3-ubyte is missing, also with .gz")


def test_too_few_images_of_a_class(refused, write_idx):
    write_idx(Path("photos"), num_train=4)  # two of class 0, one of 1 and 2
    assert refused(1, "photos").startswith("Class '1' has 1 different image; 2 are needed, one for each of train, val")


# Places to write to


@pytest.mark.parametrize("out", ["/dev/null/run", "/proc/run", "notes.txt/run"])
def test_a_run_that_cannot_be_made(refused, out):
    Path("notes.txt").write_text("hello")
    assert refused(1, "digits", "--out", out).startswith(f"{out} could not be made: ")


def test_runs_that_cannot_be_made(refused):
    Path("runs").write_text("a file")
    assert re.fullmatch(r"runs\S* could not be made: .*; give --out", refused(1, "digits"))


def test_a_run_is_not_written_over_other_files(refused):
    Path("notes.txt").write_text("hello")
    assert refused(2, "digits", "--out", "notes.txt") == "notes.txt is a file; give --out a folder for the run"
    Path("photos").mkdir()
    Path("photos/cat.jpg").write_text("hello")
    assert refused(2, "digits", "--out", "photos") == ("photos is not empty and holds no run; give --out a new folder")
    assert Path("photos/cat.jpg").read_text() == "hello"


# What shows only once the run has begun


def test_a_loss_that_is_not_finite(vitrail, small):
    wild = ["--set=training.learning_rate=1e30", "--set=training.optimizer=sgd", "--set=training.clip_norm=none"]
    done = vitrail("train", *small("photos"), *wild, "--out", "run", "--json")
    assert done.code == 1
    assert done.json == {"error": done.error, "exit_code": 1}
    assert done.error.startswith("The loss or a weight is not a finite number at step ")
    assert "lower training.learning_rate, set training.clip_norm and start a new run" in done.error
    assert not Path("run/model.safetensors").exists()
    done = vitrail("evaluate", "run", "--split", "validation")
    assert (done.code, done.error) == (1, "run holds no model.json; it is no run, or its first epoch never ended")


def test_not_enough_memory(vitrail):
    done = vitrail("train", "digits", "--set", "model.embed_dim=4194304", "--out", "run")
    assert done.code == 1
    assert done.error == (
        "There is not enough memory for vit_micro_conv4_8 with training.batch_size=64; "
        "lower that, raise training.accumulate, or take a smaller model"
    )


def test_test_images_that_cannot_be_read_cost_no_training(vitrail, small, interrupted):
    vitrail("train", *small("photos"), "--out", "undisturbed")
    with interrupted(signal.SIGTERM):
        vitrail("train", *small("photos"), "--out", "run")
    images = Path("photos/t10k-images-idx3-ubyte")
    good = images.read_bytes()
    images.write_bytes(good[:-1])
    damaged = (
        "error: photos/t10k-images-idx3-ubyte holds 1919 bytes after its header, which promises 1920; download it again"
    )
    assert vitrail("train", *small("photos"), "--out", "other").err.splitlines()[-1] == damaged
    assert not Path("other").exists()
    done = vitrail("train", "--resume", "--out", "run")
    assert done.code == 1
    assert done.err.splitlines()[-1] == (
        f"{damaged}; when that is mended, continue with: vitrail train --resume --out run"
    )
    images.write_bytes(good)
    done = vitrail("train", "--resume", "--out", "run", "--json")
    assert done.code == 0
    assert Path("run/model.safetensors").read_bytes() == Path("undisturbed/model.safetensors").read_bytes()
    assert vitrail("evaluate", "undisturbed", "--json").json["test"] == done.json["test"]


def test_a_disk_that_refuses_says_how_to_go_on(vitrail, small, interrupted):
    vitrail("train", *small("photos"), "--out", "undisturbed")
    with interrupted(2):
        vitrail("train", *small("photos"), "--out", "run")
    in_the_way = Path("run/model.safetensors")
    in_the_way.mkdir()
    (in_the_way / "file").touch()
    done = vitrail("train", "--resume", "--out", "run")
    assert done.code == 1
    assert done.error.startswith("run/model.safetensors could not be written: ")
    assert done.error.endswith("; when that is mended, continue with: vitrail train --resume --out run")
    (in_the_way / "file").unlink()
    in_the_way.rmdir()
    assert vitrail("train", "--resume", "--out", "run").code == 0
    assert Path("run/model.safetensors").read_bytes() == Path("undisturbed/model.safetensors").read_bytes()
