import re

import numpy as np
import pytest

from vitrail import preparation
from vitrail.config import config_to_json, differences
from vitrail.data.dataset import Dataset, ImageSet, number_names
from vitrail.data.preprocess import Preprocess
from vitrail.data.sources import open_dataset
from vitrail.errors import ConfigError, DataError
from vitrail.preparation import Request, TrainingData, prepare_new, prepare_resumed, preprocess_of
from vitrail.recipes import recipe_function
from vitrail.runs import RunDirectory


def dataset(size=(8, 8), channels=1, num_classes=3, published=("train", "test")) -> Dataset:
    """A set called `beetles`, of noise."""

    def read(split: str) -> ImageSet:
        pixels = np.random.default_rng(int(split == "test")).integers(0, 256, (60, *size, channels), dtype=np.uint8)
        return ImageSet(pixels, np.arange(60, dtype=np.int64) % num_classes, number_names(split, 60))

    return Dataset("beetles", tuple("abcdefghij"[:num_classes]), published, read)


@pytest.fixture
def started(tmp_path):
    """`started(request)`: the directory of a run on an IDX folder, as `vitrail train` makes it."""

    def start(request: Request) -> tuple[RunDirectory, TrainingData]:
        config, data = prepare_new(open_dataset(*request.data), request)
        run = RunDirectory(tmp_path / "run")
        run.create(config_to_json(config), data.splits.to_json())
        return run, data

    return start


# A new run


def test_a_config_is_fitted_to_its_data():
    config, data = prepare_new(dataset(size=(10, 12), channels=3), Request())
    assert config.model.image_size == (10, 12)
    assert (config.model.in_chans, config.model.num_classes) == (3, 3)
    assert config.data.source == "beetles"
    assert (len(data.train), len(data.validation)) == (54, 6)
    assert data.train.pixels.shape == (54, 10, 12, 3)
    for channel in range(3):
        values = data.train.pixels[..., channel] / 255
        assert config.model.mean[channel] == pytest.approx(values.mean(), abs=1e-6)
        assert config.model.std[channel] == pytest.approx(values.std(), abs=1e-6)


def test_statistics_are_of_training_images_only(monkeypatch):
    _, data = prepare_new(dataset(published=("all",)), Request())
    config, _ = prepare_new(dataset(published=("all",)), Request())
    assert config.model.mean[0] == pytest.approx(data.train.pixels.mean() / 255, abs=1e-6)
    assert len(data.train) + len(data.validation) == 48  # 12 are for the test


def test_statistics_are_of_images_at_the_models_size():
    config, data = prepare_new(dataset(size=(8, 16)), Request(recipe="digits"))
    assert data.train.pixels.shape[1:] == (8, 8, 1)
    assert data.train.pixels[:, :2].max() == 0  # black above and below
    assert config.model.mean[0] == pytest.approx(data.train.pixels.mean() / 255, abs=1e-6)


def test_images_of_one_value_have_a_deviation_above_zero():
    images = ImageSet(np.zeros((60, 8, 8, 1), np.uint8), np.arange(60, dtype=np.int64) % 2, ("image",) * 60)
    images.pixels[:, 0, 0, 0] = np.arange(60)  # all different, and almost all black
    source = Dataset("black", ("a", "b"), ("train", "validation"), lambda split: images, draws_test=False)
    config, _ = prepare_new(source, Request())
    assert config.model.std[0] >= 1e-3


def test_statistics_that_were_given_stay():
    config, _ = prepare_new(dataset(), Request(settings={"model.mean": "0.3", "model.std": [0.4]}))
    assert (config.model.mean, config.model.std) == ((0.3,), (0.4,))
    config, _ = prepare_new(dataset(size=(28, 28)), Request(recipe="s5_vit_mnist"))
    assert (config.model.mean, config.model.std) == ((0.5,), (0.5,))


@pytest.mark.parametrize(
    ("request_", "size", "recipe", "image_size"),
    [
        (Request(), (8, 8), "digits", (8, 8)),
        (Request(), (28, 28), "mnist", (28, 28)),
        (Request(), (20, 30), "mnist", (20, 30)),
        (Request(), (100, 200), "mnist", (48, 96)),
        (Request(recipe="mnist"), (8, 8), "mnist", (28, 28)),
        (Request(recipe="digits"), (28, 28), "digits", (8, 8)),
        (Request(model="vit_micro_conv8_28"), (8, 8), "digits", (28, 28)),
        (Request(settings={"model.image_size": 16}), (8, 8), "digits", (16, 16)),
    ],
)
def test_recipe_and_size_follow_the_data_unless_asked_for(request_, size, recipe, image_size):
    config, data = prepare_new(dataset(size=size), request_)
    assert (config.recipe, config.model.image_size) == (recipe, image_size)
    assert data.train.pixels.shape[1:] == data.validation.pixels.shape[1:] == (*image_size, 1)


def test_options_are_settings_of_the_run():
    config, _ = prepare_new(
        dataset(),
        Request(
            model="vit_micro_conv4_8", epochs=7, seed=3, precision="bfloat16", settings={"training.batch_size": "9"}
        ),
    )
    assert config.model_name == "vit_micro_conv4_8"
    assert (config.training.epochs, config.seed, config.training.precision) == (7, 3, "bfloat16")
    assert config.training.batch_size == 9
    recipe = recipe_function("digits")()
    changed = {line.partition(":")[0] for line in differences(recipe, config)}
    assert changed == {
        "data.source", "data.fit", "seed", "model.num_classes", "model.mean", "model.std", "training.epochs",
        "training.precision", "training.batch_size", "training.imbalance",
    }  # fmt: skip


def test_a_seed_of_zero_is_said_too():
    assert prepare_new(dataset(), Request(seed=0, settings={"data.split_seed": 0}))[0].seed == 0


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            Request(settings={"model.num_classes": 5}),
            r"^model\.num_classes=5 disagrees with beetles, which has 3 classes$",
        ),
        (Request(settings={"model.num_classes": "5"}), r"^model\.num_classes=5 disagrees with beetles"),
        (Request(recipe="digist"), r"^No recipe named 'digist'\. Did you mean 'digits'\?"),
        (Request(model="vit_tniy"), r"^No model named 'vit_tniy'\."),
        (
            Request(settings={"training.batchsize": 5}),
            r"^No setting named 'training\.batchsize'\. Did you mean 'training",
        ),
        (Request(epochs=3, settings={"training.epochs": 4}), r"^training\.epochs is given twice, by --epochs and as a"),
        (Request(seed=3, settings={"seed": 4}), r"^seed is given twice, by --seed and as a setting"),
        (
            Request(settings={"data.source": "mnist"}),
            r"^data\.source='mnist' is not a setting of its own; give it as DATA",
        ),
        (Request(epochs=0), r"^training\.epochs=0 is not possible; "),
    ],
)
def test_what_cannot_be_asked_for_is_refused(request_, message):
    with pytest.raises(ConfigError, match=message):
        prepare_new(dataset(), request_)


def test_channels_can_be_asked_for():
    config, data = prepare_new(dataset(channels=3), Request(settings={"model.in_chans": 1}))
    assert config.model.in_chans == 1
    assert len(config.model.mean) == 1
    assert data.train.pixels.shape == (54, 8, 8, 1)


def test_images_of_the_right_size_are_shared():
    images = dataset().read("train")
    config, _ = prepare_new(dataset(), Request())
    assert preprocess_of(config) == Preprocess(image_size=(8, 8), channels=1, fit="pad")
    assert images.resized(preprocess_of(config)) is images
    larger = images.resized(Preprocess(image_size=(16, 12), channels=1, fit="squash"))
    assert larger.pixels.shape == (60, 16, 12, 1)
    assert larger.names == images.names
    assert larger.hashes == images.hashes  # of the images at their own size


# A run that is resumed


def test_a_resumed_run_has_its_config_and_images(started, tmp_path, write_idx):
    request = Request(data=(str(write_idx(tmp_path / "my data")),), epochs=4, settings={"model.depth": 1})
    run, data = started(request)
    for again in (Request(), Request(data=request.data), Request(epochs=4), request):
        config, resumed = prepare_resumed(run, again)
        assert config == run.config()
        assert resumed.splits.fingerprint == data.splits.fingerprint
        for ours, theirs in ((resumed.train, data.train), (resumed.validation, data.validation)):
            np.testing.assert_array_equal(ours.pixels, theirs.pixels)
            assert ours.names == theirs.names


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (Request(epochs=5), "training.epochs: 4 -> 5"),
        (Request(seed=1), "seed: 0 -> 1"),
        (Request(recipe="mnist"), "recipe: digits -> mnist"),
        (Request(model="s5_vit"), "model_name: vit_micro_conv4_8 -> s5_vit"),
        (Request(precision="bfloat16"), "training.precision: auto -> bfloat16"),
        (Request(settings={"training.ema_decay": "0.5", "model.depth": 1}), "training.ema_decay: 0.98 -> 0.5"),
        (Request(settings={"data.split_seed": 3}), "data.split_seed: 0 -> 3"),
    ],
)
def test_other_settings_are_refused_by_name(started, tmp_path, request_, named, write_idx):
    run, _ = started(Request(data=(str(write_idx(tmp_path / "data")),), epochs=4, settings={"model.depth": 1}))
    message = f"{run.path} has other settings ({named}); resume it without them, or start a new run"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        prepare_resumed(run, request_)


def test_all_keys_that_differ_are_named(started, tmp_path, write_idx):
    run, _ = started(Request(data=(str(write_idx(tmp_path / "data")),)))
    with pytest.raises(
        ConfigError, match=r"\(seed: 0 -> 2; training\.epochs: 60 -> 5; training\.batch_size: 64 -> 8\)"
    ):
        prepare_resumed(run, Request(seed=2, epochs=5, settings={"training.batch_size": 8}))


def test_changed_images_are_refused(started, tmp_path, write_idx):
    folder = write_idx(tmp_path / "data")
    run, _ = started(Request(data=(str(folder),)))
    write_idx(folder, seed=1)
    for request in (Request(), Request(data=(str(folder),))):
        with pytest.raises(DataError, match=r"^data is not the data that the splits were drawn from"):
            prepare_resumed(run, request)


def test_changed_labels_are_refused(started, tmp_path, write_idx):
    folder = write_idx(tmp_path / "data")
    run, _ = started(Request(data=(str(folder),)))
    path = folder / "train-labels-idx1-ubyte"
    content = bytearray(path.read_bytes())
    content[8] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"^data is not the data"):
        prepare_resumed(run, Request())


def test_other_data_are_refused(started, tmp_path, write_idx):
    run, _ = started(Request(data=(str(write_idx(tmp_path / "data")),)))
    write_idx(tmp_path / "other")
    message = rf"^{re.escape(str(run.path))} was trained on data, not other; resume it on its own data$"
    with pytest.raises(ConfigError, match=message):
        prepare_resumed(run, Request(data=(str(tmp_path / "other"),)))


def test_a_folder_that_moved_is_the_same_data(started, tmp_path, write_idx):
    folder = write_idx(tmp_path / "data")
    run, data = started(Request(data=(str(folder),)))
    (tmp_path / "disk").mkdir()
    moved = folder.rename(tmp_path / "disk" / "data")
    with pytest.raises(ConfigError, match=r"does not exist"):
        prepare_resumed(run, Request())
    _, resumed = prepare_resumed(run, Request(data=(str(moved),)))
    np.testing.assert_array_equal(resumed.train.pixels, data.train.pixels)


def test_a_finished_run_is_not_resumed(started, tmp_path, write_idx):
    run, _ = started(Request(data=(str(write_idx(tmp_path / "data")),)))
    run.journal.write("finished", result={"test": {}})
    message = rf"^{re.escape(str(run.path))} is finished; `vitrail train` without --resume starts a new run$"
    with pytest.raises(ConfigError, match=message):
        prepare_resumed(run, Request())


def test_to_go_on_the_test_split_is_not_opened(started, tmp_path, monkeypatch, write_idx):
    folder = write_idx(tmp_path / "data")
    opened = []
    real = preparation.open_dataset

    def watched(*data, options=None):
        source = real(*data)
        return Dataset(
            source.name, source.classes, source.published, lambda split: opened.append(split) or source.read(split)
        )

    monkeypatch.setattr(preparation, "open_dataset", watched)
    config, data = prepare_new(watched(str(folder)), Request(data=(str(folder),)))
    run = RunDirectory(tmp_path / "run")
    run.create(config_to_json(config), data.splits.to_json())
    opened.clear()
    prepare_resumed(run, Request())
    assert {*opened} == {"train"}


def test_what_changes_nothing_is_refused_only_where_it_is_asked_for(started, write_idx, tmp_path):
    data = (str(write_idx(tmp_path / "bars")),)
    run, _ = started(Request(data, settings={"data.augment.policy": "randaugment", "data.augment.policy_num_ops": 3}))
    again = Request(data, like=run, settings={"data.augment.policy": "none"})
    config, _ = prepare_new(open_dataset(*data), again)
    assert (config.data.augment.policy, config.data.augment.policy_num_ops) == ("none", 3)
    assert prepare_resumed(run, Request(data, settings={"data.augment.policy_num_ops": 3}))
    with pytest.raises(ConfigError, match=r"^data\.augment\.policy_num_ops changes nothing without data\.augment\.pol"):
        prepare_new(open_dataset(*data), Request(data, settings={"data.augment.policy_num_ops": 3}))
    with pytest.raises(
        ConfigError, match=r"^data\.serving=stream is about image files, and bars has none; leave it out$"
    ):
        prepare_new(open_dataset(*data), Request(data, settings={"data.serving": "stream"}))
    assert prepare_new(open_dataset(*data), Request(data, settings={"data.serving": "auto"}))
