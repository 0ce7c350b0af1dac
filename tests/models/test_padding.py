import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vitrail.errors import ConfigError
from vitrail.models.padding import check_patch_mask, check_sizes, inside, pad_images, shrunk, split_mask
from vitrail.models.vit import VisionTransformer

Build = Callable[..., VisionTransformer]

# Each way to turn pixels to tokens, to say where they are and to pool them.
MODELS: dict[str, dict[str, Any]] = {
    "learned": {},
    "learned, wide": {"image_size": (8, 20), "global_pool": "avg"},
    "learned, patches alone": {"no_embed_class": True, "reg_tokens": 2, "global_pool": "token_avg"},
    "sincos2d": {"pos_embed": "sincos2d", "global_pool": "avg", "class_token": False},
    "rope": {"pos_embed": "rope", "reg_tokens": 2, "init_values": 0.5},
    "rope, mean": {"pos_embed": "rope", "global_pool": "avg", "class_token": False, "qk_norm": True},
    "none": {"pos_embed": "none", "global_pool": "map"},
    "attention pooling": {"global_pool": "map", "class_token": False},
    "distilled": {"distilled": True, "mlp_layer": "swiglu"},
    "dual patch norm": {"patch_norm": True, "global_pool": "avg"},
    "convolutions": {"stem": "conv", "global_pool": "avg", "class_token": False},
    "convolutions, sincos2d": {"stem": "conv", "pos_embed": "sincos2d"},
    "convolutions, rope": {"stem": "conv", "pos_embed": "rope", "global_pool": "map"},
    "convolutions, none": {"stem": "conv", "pos_embed": "none", "patch_size": 8, "image_size": 16},
    "convolutions, wide": {"stem": "conv", "image_size": (8, 19), "global_pool": "avg"},
}


# Batches


def test_images_are_padded_at_the_bottom_and_on_the_right() -> None:
    first, second = torch.ones(2, 2, 3), torch.full((2, 3, 1), 2.0)
    batch, sizes = pad_images([first, second])
    assert sizes.tolist() == [[2, 3], [3, 1]]
    assert batch.shape == (2, 2, 3, 3)
    assert batch[:, 0].tolist() == [[[1, 1, 1], [1, 1, 1], [0, 0, 0]], [[2, 0, 0], [2, 0, 0], [2, 0, 0]]]


def test_images_keep_their_type() -> None:
    for dtype in (torch.uint8, torch.float32):
        batch, sizes = pad_images([torch.ones(1, 2, 2, dtype=dtype)] * 2)
        assert (batch.dtype, sizes.dtype) == (dtype, torch.int64)
        assert batch.all()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "There are no images to pad; give one or more"),
        (
            [torch.zeros(3, 2, 2), torch.zeros(1, 2, 2)],
            "Images of one batch are (channels, rows, columns) of one type and number of channels, not (1, 2, 2) "
            "torch.float32 beside (3, 2, 2) torch.float32; convert them first",
        ),
        ([torch.zeros(3, 2, 2), torch.zeros(3, 2, 2, dtype=torch.uint8)], "not (3, 2, 2) torch.uint8 beside"),
        ([torch.zeros(2, 2)], "not (2, 2) torch.float32 beside"),
    ],
)
def test_images_that_make_no_batch_are_refused(images: list[Tensor], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        pad_images(images)


def test_places_inside_an_image() -> None:
    places = inside(torch.tensor([[1, 2], [2, 3]]), (2, 3))
    assert places.int().tolist() == [[[1, 1, 0], [0, 0, 0]], [[1, 1, 1], [1, 1, 1]]]


# A padded image has the logits that it has alone


@settings(max_examples=6)
@given(
    grids=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=3),
    rest=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    seed=st.integers(0, 2**20),
)
@pytest.mark.parametrize("name", MODELS)
def test_a_padded_image_has_the_logits_that_it_has_alone(
    tiny_vit: Build,
    images: Callable[..., Tensor],
    name: str,
    grids: list[tuple[int, int]],
    rest: tuple[int, int],
    seed: int,
) -> None:
    model = tiny_vit(**MODELS[name])
    rows, columns = model.config.patch_size
    less = rest if model.config.stem == "conv" else (0, 0)  # convolutions take sides that do not divide
    batch = [
        images(3, grid[0] * rows - less[0], grid[1] * columns - less[1], seed=seed + index)
        for index, grid in enumerate(grids)
    ]
    padded, sizes = pad_images(batch)
    with torch.no_grad():
        alone = torch.cat([model(image[None]) for image in batch])
        torch.testing.assert_close(model(padded, sizes=sizes), alone, rtol=1e-4, atol=1e-4)
        spoilt = padded + ~inside(sizes, (padded.shape[2], padded.shape[3]))[:, None] * 100.0
        torch.testing.assert_close(model(spoilt, sizes=sizes), alone, rtol=1e-4, atol=1e-4)
    assert alone.std() > 0.05


@pytest.mark.parametrize("name", MODELS)
def test_padding_without_sizes_changes_logits(tiny_vit: Build, images: Callable[..., Tensor], name: str) -> None:
    model, image = tiny_vit(**MODELS[name]), images(1, 3, 16, 8)
    padded = torch.nn.functional.pad(image, (0, 8, 0, 8))
    assert (model(padded) - model(image)).abs().max() > 1e-2


def test_gradients_of_padding_are_zero(tiny_vit: Build, images: Callable[..., Tensor]) -> None:
    for name in ("learned", "convolutions"):
        padded, sizes = pad_images([images(3, 8, 4), images(3, 4, 12)])
        padded.requires_grad_()
        tiny_vit(**MODELS[name])(padded, sizes=sizes).sum().backward()
        assert padded.grad is not None
        places = inside(sizes, (8, 12))[:, None].expand_as(padded)
        assert not padded.grad[~places].any()
        assert padded.grad[places].abs().min() > 0


def test_bytes_are_padded_like_floats(tiny_vit: Build, images: Callable[..., Tensor]) -> None:
    model = tiny_vit(mean=(0.1, 0.2, 0.3), global_pool="avg")
    batch = [(images(3, *size) * 255).to(torch.uint8) for size in ((8, 12), (16, 4))]
    padded, sizes = pad_images(batch)
    alone = torch.cat([model(image[None]) for image in batch])
    torch.testing.assert_close(model(padded, sizes=sizes), alone, rtol=1e-4, atol=1e-4)


def test_features_of_a_padded_image_are_its_own(tiny_vit: Build, images: Callable[..., Tensor]) -> None:
    model = tiny_vit(global_pool="avg")
    batch = [images(3, 8, 12), images(3, 12, 4)]
    padded, sizes = pad_images(batch)
    together = model.features(padded, sizes=sizes)
    for index, image in enumerate(batch):
        alone = model.features(image[None])
        rows, columns = alone.grid
        patches = together.tokens[index, 1:].unflatten(0, together.grid)[:rows, :columns].flatten(0, 1)
        torch.testing.assert_close(patches, alone.tokens[0, 1:], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(together.pooled[index], alone.pooled[0], rtol=1e-4, atol=1e-4)


def test_masks_and_sizes_are_taken_together(tiny_vit: Build, images: Callable[..., Tensor]) -> None:
    model = tiny_vit(global_pool="avg")
    image = images(3, 8, 12)
    padded, sizes = pad_images([image, images(3, 12, 12)])
    mask = torch.ones(2, 3, 3, dtype=torch.bool)
    mask[0, 1, :2] = False
    expected = model(image[None], mask=mask[:1, :2])
    torch.testing.assert_close(model(padded, mask=mask, sizes=sizes)[:1], expected, rtol=1e-4, atol=1e-4)


# Padding that a channel of its own tells of


def with_mask(batch: Tensor, real: Tensor) -> Tensor:
    """Images (B, C, rows, columns) with the channel that says which pixels are real, bool (B, rows, columns)."""
    largest = 255 if batch.dtype == torch.uint8 else 1
    return torch.cat([batch, (real * largest)[:, None].to(batch.dtype)], dim=1)


def test_the_last_channel_is_taken_off() -> None:
    real = torch.tensor([[[1, 0], [0, 1]], [[0, 0], [0, 0]]]).bool()
    for largest, dtype in ((255, torch.uint8), (1.0, torch.float32)):
        batch = torch.full((2, 3, 2, 2), largest, dtype=dtype)
        images, found = split_mask(with_mask(batch, real))
        torch.testing.assert_close(images, batch)
        assert found[0].equal(real[0])
        assert found[1].all()  # one without any image is a whole one
    halves = torch.tensor([0.4, 0.5, 0.6, 1.0]).view(1, 1, 2, 2).expand(1, 2, 2, 2)
    assert split_mask(halves)[1].tolist() == [[[False, False], [True, True]]]


def test_patches_with_a_real_pixel() -> None:
    real = torch.zeros(1, 5, 7, dtype=torch.bool)
    real[0, 1, 3] = real[0, 4, 6] = True
    assert shrunk(real, (2, 3)).int().tolist() == [[[0, 1, 0], [0, 0, 0], [0, 0, 1]]]


@pytest.mark.parametrize("name", MODELS)
def test_an_image_that_fills_its_canvas_is_seen_as_without_a_mask(
    tiny_vit: Build, images: Callable[..., Tensor], name: str
) -> None:
    plain, masked = tiny_vit(**MODELS[name]), tiny_vit(**MODELS[name], padding_mask=True)
    masked.load_state_dict(plain.state_dict())
    batch = images(2, 3, 16, 8)
    whole = with_mask(batch, torch.ones(2, 16, 8, dtype=torch.bool))
    with torch.no_grad():
        torch.testing.assert_close(masked(whole), plain(batch), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_what_padding_holds_has_no_influence(tiny_vit: Build, images: Callable[..., Tensor], name: str) -> None:
    model = tiny_vit(**MODELS[name], padding_mask=True, mean=(0.1, 0.2, 0.3)).eval()
    real = torch.zeros(2, 16, 16, dtype=torch.bool)
    real[0, 3:13] = real[1, :, 6:9] = True
    batch = images(2, 3, 16, 16)
    other = torch.where(real[:, None], batch, 1 - batch)
    with torch.no_grad():
        logits = model(with_mask(batch, real))
        assert logits.equal(model(with_mask(other, real)))
        torch.testing.assert_close(logits, model.features(with_mask(batch, real)).logits, rtol=1e-4, atol=1e-4)
        assert (logits - model(with_mask(batch, torch.ones_like(real)))).abs().max() > 1e-3


@pytest.mark.parametrize("name", [name for name, config in MODELS.items() if config.get("pos_embed") == "none"])
def test_a_mask_at_the_top_left_says_what_sizes_say(tiny_vit: Build, images: Callable[..., Tensor], name: str) -> None:
    plain, masked = tiny_vit(**MODELS[name]), tiny_vit(**MODELS[name], padding_mask=True)
    masked.load_state_dict(plain.state_dict())
    padded, sizes = pad_images([images(3, 8, 16), images(3, 16, 8), images(3, 16, 16)])
    real = inside(sizes, (16, 16))
    with torch.no_grad():
        expected = plain(padded, sizes=sizes)
        torch.testing.assert_close(masked(with_mask(padded, real)), expected, rtol=1e-5, atol=1e-5)
        both = masked(with_mask(padded, torch.ones_like(real)), sizes=sizes)
        torch.testing.assert_close(both, expected, rtol=1e-5, atol=1e-5)


def test_patches_that_are_padding_alone_take_no_part(tiny_vit: Build, images: Callable[..., Tensor]) -> None:
    model = tiny_vit(global_pool="avg", padding_mask=True)
    real = torch.zeros(1, 12, 12, dtype=torch.bool)
    real[:, 4:8] = True
    given_mask = torch.zeros(1, 3, 3, dtype=torch.bool)
    given_mask[:, 1] = True
    plain = tiny_vit(global_pool="avg")
    plain.load_state_dict(model.state_dict())
    batch = images(1, 3, 12, 12)
    expected = plain(batch, mask=given_mask)
    torch.testing.assert_close(model(with_mask(batch, real)), expected, rtol=1e-5, atol=1e-5)
    given_mask[:, :, 0] = False  # together with a mask of patches
    both = model(with_mask(batch, real), mask=given_mask)
    torch.testing.assert_close(both, plain(batch, mask=given_mask), rtol=1e-5, atol=1e-5)


def test_bytes_and_floats_with_a_mask_are_alike(tiny_vit: Build, images: Callable[..., Tensor]) -> None:
    model = tiny_vit(padding_mask=True)
    batch = (images(2, 3, 16, 16) * 255).to(torch.uint8)
    real = torch.zeros(2, 16, 16, dtype=torch.bool)
    real[:, 5:] = True
    masked = with_mask(batch, real)
    torch.testing.assert_close(model(masked), model(masked.float() / 255), rtol=1e-4, atol=1e-4)


def test_a_mask_is_learned_with(tiny_vit: Build, images: Callable[..., Tensor]) -> None:
    for name in ("learned", "convolutions"):
        batch = with_mask(images(2, 3, 16, 16), torch.ones(2, 16, 16, dtype=torch.bool))
        batch[:, 3, :8] = 0
        batch.requires_grad_()
        tiny_vit(**MODELS[name], padding_mask=True).train()(batch).sum().backward()
        assert batch.grad is not None
        assert not batch.grad[:, :, :8].any()
        assert not batch.grad[:, 3].any()
        assert batch.grad[:, :3, 8:].abs().min() > 0


def test_what_a_mask_does_not_go_with_is_refused(tiny_vit: Build, images: Callable[..., Tensor]) -> None:
    model = tiny_vit(padding_mask=True)
    with pytest.raises(ConfigError, match=r"\(B, 4, rows, columns\), not \(1, 3, 16, 16\)"):
        model(images(1, 3, 16, 16))
    message = "^Tokens of a model for fit=native cannot be merged: some are padding; use merge_tokens=0$"
    with pytest.raises(ConfigError, match=message):
        model.merge_tokens(1)
    model.merge_tokens(0)
    with pytest.raises(ValueError, match=r"padding_mask=true and patch_drop_rate=0\.5 do not go together"):
        tiny_vit(padding_mask=True, patch_drop_rate=0.5)


# Refusals


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            torch.tensor([[12, 12]]),
            "sizes (1, 2) torch.int64 are not the rows and columns of 2 images; give whole numbers of shape (2, 2), "
            "as pad_images does",
        ),
        (torch.tensor([12, 12]), "sizes (2,) torch.int64 are not the rows and columns of 2 images"),
        (
            [[12, 12], [12, 12]],
            "sizes are a list; give a tensor of whole numbers of shape (2, 2), each image's rows and columns, as "
            "pad_images does",
        ),
        (torch.full((2, 2), 12.0), "sizes (2, 2) torch.float32 are not"),
        (torch.ones(2, 2, dtype=torch.bool), "sizes (2, 2) torch.bool are not"),
        (
            torch.tensor([[12, 12], [16, 4]]),
            "sizes from 4 to 16 do not lie within images of 12x12 pixels; give each image's own rows and columns, "
            "as pad_images does",
        ),
        (torch.tensor([[12, 12], [4, 16]]), "sizes from 4 to 16 do not lie within images of 12x12 pixels"),
        (torch.tensor([[12, 12], [0, 12]]), "sizes from 0 to 12 do not lie within images of 12x12 pixels"),
        (torch.tensor([[12, 12], [-4, 12]]), "sizes from -4 to 12 do not lie within"),
        (torch.tensor([[12, 12], [8, 6]]), "sizes of images are not all multiples of patch_size=4x4; resize them"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    tiny_vit: Build, images: Callable[..., Tensor], sizes: Tensor, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        tiny_vit()(images(2, 3, 12, 12), sizes=sizes)


def test_sizes_that_fit_are_taken() -> None:
    batch = torch.zeros(2, 3, 8, 12)
    for dtype in (torch.int32, torch.int64):
        check_sizes(torch.tensor([[8, 12], [1, 1]], dtype=dtype), batch)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (
            torch.ones(2, 3, 3),
            "The patch mask is (2, 3, 3) float32; it must be bool of shape (2, 3, 3), batch, rows and columns of "
            "patches, true where a patch takes part",
        ),
        (
            [[[True] * 3] * 3] * 2,
            "The patch mask is a list; it must be a tensor, bool of shape (2, 3, 3), batch, rows and columns of "
            "patches, true where a patch takes part",
        ),
        (torch.ones(2, 3, 3).bool().numpy(), "The patch mask is a ndarray; it must be a tensor"),
        (torch.ones(2, 3, 3, dtype=torch.int64), "The patch mask is (2, 3, 3) int64; it must be bool"),
        (torch.ones(2, 9, dtype=torch.bool), "The patch mask is (2, 9) bool; it must be bool of shape (2, 3, 3)"),
        (torch.ones(1, 3, 3, dtype=torch.bool), "The patch mask is (1, 3, 3) bool"),
        (torch.ones(2, 12, 12, dtype=torch.bool), "The patch mask is (2, 12, 12) bool"),
    ],
)
def test_masks_that_do_not_fit_are_refused(
    tiny_vit: Build, images: Callable[..., Tensor], mask: Tensor, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        tiny_vit()(images(2, 3, 12, 12), mask=mask)


NOTHING = "The patch mask leaves out every patch of an image, and the head reads nothing else; keep one patch at least"


@pytest.mark.parametrize("settings", [{"global_pool": "avg"}, {"global_pool": "map", "class_token": False}])
def test_a_mask_that_leaves_nothing_to_read_is_refused(
    tiny_vit: Build, images: Callable[..., Tensor], settings: dict[str, Any]
) -> None:
    model, batch = tiny_vit(**settings), images(2, 3, 12, 12)
    mask = torch.ones(2, 3, 3, dtype=torch.bool)
    mask[1] = False
    with pytest.raises(ConfigError, match=f"^{re.escape(NOTHING)}$"):
        model(batch, mask=mask)
    mask[1, 2] = True  # all of it lies in the padding
    assert model(batch, mask=mask).isfinite().all()
    with pytest.raises(ConfigError, match=f"^{re.escape(NOTHING)}$"):
        model(batch, mask=mask, sizes=torch.tensor([[12, 12], [8, 12]]))


@pytest.mark.parametrize("pool", ["token", "token_avg"])
def test_a_class_token_answers_without_patches(tiny_vit: Build, images: Callable[..., Tensor], pool: str) -> None:
    model, nothing = tiny_vit(global_pool=pool), torch.zeros(2, 3, 3, dtype=torch.bool)
    first, second = (model(images(2, 3, 12, 12, seed=seed), mask=nothing) for seed in (0, 1))
    assert first.isfinite().all()
    assert all(torch.equal(before, after) for before, after in pairwise([first[0], first[1], second[0]]))
    check_patch_mask(nothing, 2, (3, 3), reads_prefix=True)


def test_dropping_patches_and_masks_do_not_go_together(tiny_vit: Build, images: Callable[..., Tensor]) -> None:
    model, batch = tiny_vit(patch_drop_rate=0.5), images(2, 3, 12, 12)
    masks = {"mask": torch.ones(2, 3, 3, dtype=torch.bool), "sizes": torch.tensor([[12, 12], [8, 4]])}
    for name, given_mask in masks.items():
        assert model.eval()(batch, **{name: given_mask}).isfinite().all()
        message = r"^patch_drop_rate and masked or padded images do not go together in training; leave one of them out$"
        with pytest.raises(ConfigError, match=message):
            model.train()(batch, **{name: given_mask})
