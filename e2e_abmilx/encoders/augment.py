"""Random crops, flips and normalisation of patches, computed on the device that holds the patches.

Letters: M patches, S side of the stored patches, s side after augmentation.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_AT_ONCE = 256  # patches converted to floating-point numbers at once, which take four times the memory


class RandomCrops(nn.Module):
    """Random resized crops, flips and shifts, drawn per patch; in evaluation the whole patch, resized.

    Only the geometry changes, because the paper found that colour augmentation hurts. A crop has between ``min_area``
    and all of the area of the patch and an aspect ratio from 3/4 to 4/3, and is resampled bilinearly.

    Args:
        size: s, side of the patches that the encoder receives, in pixels.
        min_area: Smallest fraction of a patch's area that a crop may have, in (0, 1].
        flips: Mirror half of the patches left to right and half of them top to bottom.
        max_shift: Largest fraction of its side by which a patch is shifted before the crop, in [0, 1); pixels from
            outside the patch are black.
    """

    def __init__(self, size: int = 224, *, min_area: float = 0.25, flips: bool = True, max_shift: float = 0.0) -> None:
        super().__init__()
        if not 0 < min_area <= 1:
            raise ValueError(f"min_area is {min_area}; it is a fraction of the patch and must lie in (0, 1]")
        if not 0 <= max_shift < 1:
            raise ValueError(f"max_shift is {max_shift}; it is a fraction of the side and must lie in [0, 1)")
        self.size, self.min_area = size, min_area
        self.flips, self.max_shift = flips, max_shift

    def forward(self, patches: Tensor) -> Tensor:
        """Crop or resize patches: uint8 ``(M, 3, S, S)`` → uint8 ``(M, 3, s, s)``."""
        if not self.training:
            return self._resize(patches)
        boxes = self.draw(len(patches), patches.device)
        parts = zip(torch.split(patches, _AT_ONCE), torch.split(boxes, _AT_ONCE), strict=True)
        return torch.cat([self._crop(part, box) for part, box in parts])

    def draw(self, count: int, device: torch.device) -> Tensor:
        """Draw affine maps from crops to patches, with coordinates in [-1, 1]; shape ``(count, 2, 3)``."""
        return self._draw_boxes(count, self._draw_signs(count, device), device)

    def _draw_boxes(self, count: int, signs: Tensor, device: torch.device) -> Tensor:
        """Draw the maps of crops and shifts; ``signs``, shape ``(2, count)``, mirror them."""

        def uniform(low: float, high: float) -> Tensor:
            return torch.empty(count, device=device).uniform_(low, high)

        side = uniform(self.min_area, 1).sqrt()
        stretch = uniform(-0.2877, 0.2877).exp().sqrt()  # aspect ratios from 3/4 to 4/3
        width, height = (side * stretch).clamp(max=1), (side / stretch).clamp(max=1)
        x, y = (uniform(-1, 1) * (1 - length) for length in (width, height))
        if self.max_shift:
            x, y = (centre + uniform(-2, 2) * self.max_shift for centre in (x, y))  # a patch has width 2
        zero = torch.zeros_like(x)
        rows = [torch.stack([width * signs[0], zero, x], 1), torch.stack([zero, height * signs[1], y], 1)]
        return torch.stack(rows, 1)

    def _draw_signs(self, count: int, device: torch.device) -> Tensor:
        """Draw which patches to mirror along each axis: -1 mirrors, 1 does not; shape ``(2, count)``."""
        if not self.flips:
            return torch.ones(2, count, device=device)
        return torch.empty(2, count, device=device).uniform_(-1, 1).sign()

    def _crop(self, patches: Tensor, boxes: Tensor) -> Tensor:
        grid = _sampling_grid(boxes, self.size)
        crops = F.grid_sample(patches.float(), grid, mode="bilinear", align_corners=False)
        return crops.round_().to(torch.uint8)

    def _resize(self, patches: Tensor) -> Tensor:
        if patches.shape[-1] == self.size:
            return patches
        return torch.cat([self._resize_part(part) for part in torch.split(patches, _AT_ONCE)])

    def _resize_part(self, patches: Tensor) -> Tensor:
        """Resize in floating-point numbers, because CUDA cannot resample bytes."""
        size = (self.size, self.size)
        return F.interpolate(patches.float(), size, mode="bilinear", antialias=True).round_().to(torch.uint8)


def _sampling_grid(boxes: Tensor, size: int) -> Tensor:
    """Return the position in its patch of each pixel of a crop, in [-1, 1] along both axes, ``(M, s, s, 2)``.

    ``boxes`` are affine maps from crops to patches, shape ``(M, 2, 3)``, and ``size`` is s. The result equals
    ``F.affine_grid``, which is a matrix product: autocast would round it to half precision and TF32 to ten bits, and
    in bf16 a pixel would be sampled up to half a pixel away.
    """
    centres = (2 * torch.arange(size, device=boxes.device) + 1) / size - 1
    x = boxes[:, 0, 0, None] * centres + boxes[:, 0, 2, None]
    y = boxes[:, 1, 1, None] * centres + boxes[:, 1, 2, None]
    return torch.stack([x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], dim=-1)


class GroupedCrops(RandomCrops):
    """The draws of the authors' code: one crop box and one shift per group of consecutive patches.

    The authors' library draws four boxes per batch, one for each quarter, and flips exactly half of the patches.

    Args:
        size: s, side of the patches that the encoder receives, in pixels.
        min_area: Smallest fraction of a patch's area that a crop may have, in (0, 1].
        flips: Mirror exactly half of the patches left to right and exactly half top to bottom.
        max_shift: Largest fraction of its side by which a patch is shifted before the crop, in [0, 1).
        groups: Number of groups that the patches of a batch are divided into.
    """

    def __init__(
        self, size: int = 224, *, min_area: float = 0.25, flips: bool = True, max_shift: float = 0.0, groups: int = 4
    ) -> None:
        super().__init__(size, min_area=min_area, flips=flips, max_shift=max_shift)
        if groups < 1:
            raise ValueError(f"groups is {groups}; it counts draws per batch and must be at least 1")
        self.groups = groups

    def draw(self, count: int, device: torch.device) -> Tensor:
        """Draw one map per group, shared by its patches, and mirror half of the patches; ``(count, 2, 3)``."""
        shared = self._draw_boxes(self.groups, torch.ones(2, self.groups, device=device), device)
        group_of = torch.arange(count, device=device) * self.groups // count
        boxes = shared[group_of]
        signs = self._draw_signs(count, device)
        boxes[:, 0, 0] *= signs[0]
        boxes[:, 1, 1] *= signs[1]
        return boxes

    def _draw_signs(self, count: int, device: torch.device) -> Tensor:
        signs = torch.ones(2, count, device=device)
        if self.flips:
            for row in signs:
                row[torch.randperm(count, device=device)[: count // 2]] = -1
        return signs


class Normalize(nn.Module):
    """Normalisation of pixels 0 … 255 to the mean and variance that an encoder expects.

    Args:
        mean: Channel means of pixels in [0, 1].
        std: Channel standard deviations of pixels in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, patches: Tensor) -> Tensor:
        """Normalise patches of shape ``(M, 3, S, S)``; the result has the channels-last memory format."""
        normal = (patches - self.mean).div_(self.std)  # in place, to hold the bag as floats only once
        return normal.contiguous(memory_format=torch.channels_last)
