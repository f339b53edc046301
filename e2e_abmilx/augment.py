"""Random crops, flips and normalisation of patches, on the device that they are on.

Letters: M patches, S side of the stored patches, s side after augmentation.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RandomCrops(nn.Module):
    """Random resized crops, flips and shifts, one draw a patch; in evaluation the whole patch, resized.

    Geometry only: the paper found that colour augmentation hurts. A crop has an area between ``min_area`` and all
    of the patch and an aspect ratio from 3/4 to 4/3, and is resampled bilinearly.

    Args:
        size: s, side of the patches that the encoder sees, pixels.
        min_area: Smallest share of a patch's area that a crop may have, in (0, 1].
        flips: Mirror half of the patches left to right and half top to bottom.
        max_shift: Move the patch before the crop by at most this share of its side, in [0, 1); what comes in from
            outside is black.
    """

    def __init__(
        self, size: int = 224, *, min_area: float = 0.25, flips: bool = True, max_shift: float = 0.0
    ) -> None:
        super().__init__()
        if not 0 < min_area <= 1:
            raise ValueError(f"min_area is {min_area}; it is a share of the patch and must lie in (0, 1]")
        if not 0 <= max_shift < 1:
            raise ValueError(f"max_shift is {max_shift}; it is a share of the side and must lie in [0, 1)")
        self.size = size
        self.min_area = min_area
        self.flips = flips
        self.max_shift = max_shift

    def forward(self, patches: Tensor) -> Tensor:
        """Crop or resize patches.

        Args:
            patches: Pixels, uint8, shape ``(M, 3, S, S)``.

        Returns:
            Pixels, uint8, shape ``(M, 3, s, s)``.
        """
        if not self.training:
            return self._resize(patches)
        boxes = self.draw(len(patches), patches.device)
        parts = zip(torch.split(patches, _AT_ONCE), torch.split(boxes, _AT_ONCE), strict=True)
        return torch.cat([self._crop(part, box) for part, box in parts])

    def draw(self, count: int, device: torch.device) -> Tensor:
        """Draw the affine maps from a crop to its patch, both in [-1, 1], shape ``(count, 2, 3)``."""
        return self._map(count, self._signs(count, device), device)

    def _map(self, count: int, signs: Tensor, device: torch.device) -> Tensor:
        """Maps of ``count`` crops and shifts; ``signs`` of shape ``(2, count)`` mirror them."""

        def uniform(low: float, high: float) -> Tensor:
            return torch.empty(count, device=device).uniform_(low, high)

        side = uniform(self.min_area, 1).sqrt()
        stretch = uniform(-0.2877, 0.2877).exp().sqrt()  # aspect ratios from 3/4 to 4/3
        width, height = (side * stretch).clamp(max=1), (side / stretch).clamp(max=1)
        x, y = (uniform(-1, 1) * (1 - length) for length in (width, height))
        if self.max_shift:
            x, y = (centre + uniform(-2, 2) * self.max_shift for centre in (x, y))  # the patch is 2 wide
        zero = torch.zeros_like(x)
        rows = [torch.stack([width * signs[0], zero, x], 1), torch.stack([zero, height * signs[1], y], 1)]
        return torch.stack(rows, 1)

    def _signs(self, count: int, device: torch.device) -> Tensor:
        if not self.flips:
            return torch.ones(2, count, device=device)
        return torch.empty(2, count, device=device).uniform_(-1, 1).sign()

    def _crop(self, patches: Tensor, boxes: Tensor) -> Tensor:
        crops = F.grid_sample(
            patches.float(), _sampling_grid(boxes, self.size), mode="bilinear", align_corners=False
        )
        return crops.round_().to(torch.uint8)

    def _resize(self, patches: Tensor) -> Tensor:
        if patches.shape[-1] == self.size:
            return patches
        return torch.cat([self._shrink(part) for part in torch.split(patches, _AT_ONCE)])

    def _shrink(self, patches: Tensor) -> Tensor:
        """Resize by way of floating-point numbers: CUDA has no resampling of bytes."""
        size = (self.size, self.size)
        return F.interpolate(patches.float(), size, mode="bilinear", antialias=True).round_().to(torch.uint8)


_AT_ONCE = (
    256  # patches that are floating-point numbers at the same time: four times the memory of their bytes
)


def _sampling_grid(boxes: Tensor, size: int) -> Tensor:
    """Where in its patch each pixel of a crop lies, both axes in [-1, 1], shape ``(M, s, s, 2)``.

    The same as ``F.affine_grid`` for boxes, which are parallel to the axes. That is a matrix product, which autocast
    would round to half precision and TF32 to ten bits: in bf16 a pixel would be taken from up to half a pixel away.

    Args:
        boxes: Affine maps from crops to patches, shape ``(M, 2, 3)``.
        size: s.
    """
    centres = (2 * torch.arange(size, device=boxes.device) + 1) / size - 1
    x = boxes[:, 0, 0, None] * centres + boxes[:, 0, 2, None]
    y = boxes[:, 1, 1, None] * centres + boxes[:, 1, 2, None]
    return torch.stack([x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], dim=-1)


class GroupedCrops(RandomCrops):
    """The authors' draws: one crop box and one shift for each of a few runs of patches, and half of them mirrored.

    The authors' library draws four boxes a batch, for its four quarters, and flips exactly half of the patches.

    Args:
        size: As in :class:`RandomCrops`.
        min_area: As there.
        flips: As there, but exactly half each way.
        max_shift: As there.
        groups: Runs of patches that share a draw.
    """

    def __init__(
        self,
        size: int = 224,
        *,
        min_area: float = 0.25,
        flips: bool = True,
        max_shift: float = 0.0,
        groups: int = 4,
    ) -> None:
        super().__init__(size, min_area=min_area, flips=flips, max_shift=max_shift)
        if groups < 1:
            raise ValueError(f"groups is {groups}; it counts draws a batch and must be at least 1")
        self.groups = groups

    def draw(self, count: int, device: torch.device) -> Tensor:
        """Draw ``groups`` maps and give each to a run of patches."""
        shared = self._map(self.groups, torch.ones(2, self.groups, device=device), device)
        group_of = torch.arange(count, device=device) * self.groups // count
        boxes = shared[group_of]
        signs = self._signs(count, device)
        boxes[:, 0, 0] *= signs[0]
        boxes[:, 1, 1] *= signs[1]
        return boxes

    def _signs(self, count: int, device: torch.device) -> Tensor:
        signs = torch.ones(2, count, device=device)
        if self.flips:
            for row in signs:
                row[torch.randperm(count, device=device)[: count // 2]] = -1
        return signs


class Normalize(nn.Module):
    """Pixels 0 … 255 to the zero mean and unit variance that an encoder was made for.

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
        """Normalise patches of shape ``(M, 3, S, S)``; the result is channels last in memory."""
        normal = (patches - self.mean).div_(self.std)  # in place: a bag of floats is large enough once
        return normal.contiguous(memory_format=torch.channels_last)
