"""Where pixels come from: random resized crops, affine moves, mirroring.

Shapes: B images of the batch, C channels, R rows, W columns; theta (B, 2, 3) maps places in the result to places in
the image, in the -1..1 coordinates of grid_sample
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.nn import functional as F

CROP_TRIES = 10
_IMAGES_PER_THREAD = 8  # fewer do not repay handing them to another thread
_SMALL_SIDE = 64  # up to it many images are cut faster at once, on CPUs too
_SMALL_PART = 64  # images; twice as fast as all of 256, whose memory is asked of the system and given back each time


def to_unit(images: Tensor) -> Tensor:
    """uint8 or float -> float in 0..1."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images


def uniform(shape: tuple[int, ...], limit: float, generator: torch.Generator) -> Tensor:
    """Numbers between -limit and limit."""
    return (torch.rand(shape, generator=generator) * 2 - 1) * limit


def draw_crop(
    num_images: int,
    canvas: tuple[int, int] | Tensor,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> Tensor:
    """(B, 4) int64 boxes, top, left, height and width, of parts of a canvas (rows, columns), or one an image (B, 2).

    Areas are uniform in `scale`, parts of the canvas, aspects (width by height) log-uniform in `ratio`: ten tries, and
    the middle where none fits, as in torchvision's RandomResizedCrop (Szegedy et al. 2015).
    """
    rows, columns = torch.as_tensor(canvas, dtype=torch.float32).expand(num_images, 2)[:, :, None].unbind(dim=1)
    area, aspect, down, right = torch.rand(4, num_images, CROP_TRIES, generator=generator).unbind()
    area = rows * columns * (scale[0] + (scale[1] - scale[0]) * area)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + (high - low) * aspect)
    height, width = (area / aspect).sqrt().round(), (area * aspect).sqrt().round()
    fits = (height >= 1) & (height <= rows) & (width >= 1) & (width <= columns)
    top, left = (down * (rows - height + 1)).floor(), (right * (columns - width + 1)).floor()
    drawn = torch.stack([top, left, height, width], dim=2)
    first = fits.int().argmax(dim=1)
    boxes = drawn[torch.arange(num_images), first]
    middle = _middle(rows[:, 0], columns[:, 0], ratio)
    return torch.where(fits.any(dim=1)[:, None], boxes, middle).long()


def _middle(rows: Tensor, columns: Tensor, ratio: tuple[float, float]) -> Tensor:
    """(B, 4) the largest boxes in the middle of canvases (B,) whose aspect is within `ratio`."""
    height = torch.minimum(rows, (columns / ratio[0]).round())
    width = torch.minimum(columns, (rows * ratio[1]).round())
    return torch.stack([((rows - height) / 2).floor(), ((columns - width) / 2).floor(), height, width], dim=1)


def apply_crop(images: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """The boxes (B, 4) cut from uint8 images and resized to `size` (rows, columns), bilinear and antialiased; uint8."""
    if images.device.type != "cpu":
        return _crop_at_once(images, boxes.to(images.device), size)
    if max(images.shape[2:]) > _SMALL_SIDE:
        return _crop_one_by_one(images, boxes, size)
    parts = zip(images.split(_SMALL_PART), boxes.split(_SMALL_PART), strict=True)
    return torch.cat([_crop_at_once(part, part_boxes, size) for part, part_boxes in parts])


def _crop_at_once(images: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """By one product of matrices along each axis, the weights of antialiased bilinear interpolation."""
    in_rows = _resampling(boxes[:, 0], boxes[:, 2], images.shape[2], size[0])
    in_columns = _resampling(boxes[:, 1], boxes[:, 3], images.shape[3], size[1])
    narrow = images.float().flatten(1, 2) @ in_columns.mT  # (B, C * R, columns): one product an image, no copies
    resized = in_rows[:, None] @ narrow.view(*images.shape[:3], size[1])
    return resized.round_().to(torch.uint8)


def _crop_one_by_one(images: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """As `apply_crop`, by torch's kernel for uint8 on CPUs: ten times faster there than what serves a whole batch."""
    cropped = torch.empty((*images.shape[:2], *size), dtype=torch.uint8)

    def crop(part: range) -> None:
        for index in part:
            top, left, height, width = places[index]
            image = images[index : index + 1, :, top : top + height, left : left + width]
            cropped[index] = F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)[0]

    places: list[list[int]] = boxes.tolist()
    num_threads = min(torch.get_num_threads(), len(images) // _IMAGES_PER_THREAD)
    if num_threads < 2:
        crop(range(len(images)))
    else:
        with ThreadPoolExecutor(num_threads) as pool:
            list(pool.map(crop, _parts(len(images), num_threads)))
    return cropped


def _parts(count: int, num_parts: int) -> Iterator[range]:
    """0..count - 1 in so many ranges of like length."""
    return (range(count * part // num_parts, count * (part + 1) // num_parts) for part in range(num_parts))


def _resampling(first: Tensor, length: Tensor, num_in: int, num_out: int) -> Tensor:
    """(B, num_out, num_in) matrices that resize the places from `first` (B,) on, `length` (B,) of them, to num_out."""
    scale = (length / num_out)[:, None]
    reach = scale.clamp(min=1)  # of a triangle about each place in the result
    centre = scale / reach * (torch.arange(num_out, device=first.device) + 0.5)
    place = torch.arange(num_in, device=first.device) - first[:, None]
    outside = (place < 0) | (place >= length[:, None])
    place = ((place + 0.5) / reach).masked_fill_(outside, torch.inf)
    weight = (place[:, None] - centre[:, :, None]).abs_().neg_().add_(1).clamp_(min=0)
    return weight.div_(weight.sum(dim=2, keepdim=True))


def draw_affine(
    num_images: int,
    image_size: tuple[int, int],
    generator: torch.Generator,
    *,
    shift_pixels: float = 0.0,
    rotate_degrees: float = 0.0,
    scale_rate: float = 0.0,
    shear_degrees: float = 0.0,
) -> Tensor:
    """Theta (B, 2, 3): shifts, rotations, changes of size and shears about the middle, up to these limits."""
    rows, columns = image_size
    shift = uniform((num_images, 2), 2 * shift_pixels, generator) / torch.tensor([columns, rows])
    angle = uniform((num_images,), math.radians(rotate_degrees), generator)
    scale = 1 + uniform((num_images,), scale_rate, generator)
    shear = torch.tan(uniform((num_images,), math.radians(shear_degrees), generator))
    cos, sin = angle.cos() / scale, angle.sin() / scale
    aspect = rows / columns
    first = torch.stack([cos, (shear * cos - sin) * aspect, shift[:, 0]], dim=1)
    second = torch.stack([sin / aspect, shear * sin + cos, shift[:, 1]], dim=1)
    return torch.stack([first, second], dim=1)


def apply_affine(images: Tensor, theta: Tensor) -> Tensor:
    """Images moved by `theta` (B, 2, 3), bilinear, black outside: uint8 or float -> float in 0..1."""
    scaled = to_unit(images)
    grid = _grid(theta.to(scaled.device), scaled.shape[2], scaled.shape[3])
    return F.grid_sample(scaled, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _grid(theta: Tensor, rows: int, columns: int) -> Tensor:
    """(B, R, W, 2), every bit as of F.affine_grid, which takes five times as long: it copies places for each image."""
    down, right = (torch.linspace(-1, 1, side, device=theta.device) * (side - 1) / side for side in (rows, columns))
    places = torch.ones(3, rows, columns, device=theta.device)
    places[0], places[1] = right, down[:, None]
    grid = torch.bmm(theta, places.flatten(1).expand(len(theta), -1, -1))
    return grid.view(-1, 2, rows, columns).permute(0, 2, 3, 1)


def draw_flip(num_images: int, rate: float, generator: torch.Generator) -> Tensor:
    """(B,) bool: which images are mirrored."""
    return torch.rand(num_images, generator=generator) < rate


def apply_flip(images: Tensor, flipped: Tensor) -> Tensor:
    """Images with those marked in `flipped` mirrored left to right."""
    return apply_flip_(images.clone(), flipped)


def apply_flip_(images: Tensor, flipped: Tensor) -> Tensor:
    """As `apply_flip`, in place: half of the time."""
    chosen = flipped.nonzero().flatten().to(images.device)
    return images.index_copy_(0, chosen, images.index_select(0, chosen).flip(-1))
