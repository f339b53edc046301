"""Crops of patches, resampled to one size with antialiasing, each patch by a box of its own.

Letters: M patches, S side of the patches, s side of the crops.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

AT_ONCE = 256  # patches converted to floating-point numbers at once, which take four times the memory


class Boxes(NamedTuple):
    """Boxes of M patches, in whole pixels of the patches; each tensor has shape ``(M,)``.

    Attributes:
        left: First column; a box may begin or end outside its patch, where all pixels are black.
        top: First row.
        width: Number of columns, from 1 to S.
        height: Number of rows, from 1 to S.
        mirrored: True where the crop is mirrored left to right.
        flipped: True where the crop is mirrored top to bottom.
    """

    left: Tensor
    top: Tensor
    width: Tensor
    height: Tensor
    mirrored: Tensor
    flipped: Tensor

    def split(self, size: int) -> Iterator["Boxes"]:
        """Yield the boxes of consecutive patches, at most ``size`` at a time."""
        return (Boxes(*part) for part in zip(*(torch.split(values, size) for values in self), strict=True))


def crop_and_resize(patches: Tensor, boxes: Boxes, size: int) -> Tensor:
    """Return the boxes of patches, resized to s = ``size``: uint8 ``(M, 3, S, S)`` → uint8 ``(M, 3, s, s)``.

    Each crop equals ``F.interpolate(patch[:, top : top + height, left : left + width], (s, s), mode="bilinear",
    antialias=True)``, as Pillow and torchvision resize, rounded.
    """
    parts = zip(torch.split(patches, AT_ONCE), boxes.split(AT_ONCE), strict=True)
    return torch.cat([_crop_part(part, box, size) for part, box in parts])


def _crop_part(patches: Tensor, boxes: Boxes, size: int) -> Tensor:
    side = patches.shape[-1]
    across = _weights(boxes.left, boxes.width, boxes.mirrored, side, size)
    down = _weights(boxes.top, boxes.height, boxes.flipped, side, size)
    with _full_precision(patches.device):
        narrow = patches.float().flatten(1, 2) @ across.mT  # (M, 3 S, s)
        crops = torch.stack([down @ channel for channel in narrow.view(len(patches), -1, side, size).unbind(1)], 1)
    return crops.round_().to(torch.uint8)


def _weights(start: Tensor, length: Tensor, mirrored: Tensor, side: int, size: int) -> Tensor:
    """Return the weight of each pixel of a patch in each pixel of its crop, along one axis, shape ``(M, s, S)``.

    The weights are those of a triangle around the centre of the crop's pixel, which is as wide as two pixels of the
    patch or of the crop, whichever are wider. Pixels outside the box have none.
    """
    start, length = start.view(-1, 1, 1), length.view(-1, 1, 1).float()
    scale = length / size
    support = scale.clamp(min=1)
    centres = (torch.arange(size, device=start.device).view(-1, 1) + 0.5) * scale  # from the start of the box
    taps = torch.arange(2 * math.ceil(max(1, side / size)) + 1, device=start.device)  # all that a triangle can reach
    offsets = (centres - support).floor() + taps
    heights = (1 - (offsets + 0.5 - centres).abs() / support).clamp_(min=0)
    heights *= (offsets >= 0) & (offsets < length)
    heights /= heights.sum(-1, keepdim=True)
    pixels = (offsets + start).long()
    pixels.masked_fill_((pixels < 0) | (pixels >= side), side)  # beyond the patch: a column that is dropped
    turned = mirrored.view(-1, 1, 1)
    pixels, heights = (torch.where(turned, values.flip(1), values) for values in (pixels, heights))
    return torch.zeros(len(length), size, side + 1, device=start.device).scatter_(-1, pixels, heights)[..., :side]


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Multiply matrices in float32: autocast would round pixels to half precision, and TF32 to ten bits."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
