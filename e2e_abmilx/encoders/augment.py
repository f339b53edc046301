"""Random crops, flips and normalisation of patches, computed on the device that holds the patches.

Letters: M patches, S side of the stored patches, s side after augmentation.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e2e_abmilx.encoders.resample import AT_ONCE, Boxes, crop_and_resize

_DRAWS = 10  # of the size of a crop, as torchvision does
_LOG_RATIO = math.log(4 / 3)  # of the largest aspect ratio


class RandomCrops(nn.Module):
    """Random resized crops, flips and shifts, drawn per patch; in evaluation the whole patch, resized.

    Only the geometry changes, because the paper found that colour augmentation hurts. A crop has between ``min_area``
    and all of the area of the patch and an aspect ratio from 3/4 to 4/3; where it would not fit into the patch, area and
    ratio are drawn again, as in torchvision's ``RandomResizedCrop``. Crops and whole patches are resampled in the same
    way, bilinearly with antialiasing.

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
        return crop_and_resize(patches, self.draw(len(patches), patches.shape[-1], patches.device), self.size)

    def draw(self, count: int, side: int, device: torch.device) -> Boxes:
        """Draw the boxes of ``count`` patches of S = ``side`` pixels."""
        return Boxes(*self._draw_boxes(count, side, device), *self._draw_flips(count, device))

    def _draw_boxes(self, count: int, side: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return left, top, width and height."""
        width, height = self._draw_sizes(count, side, device)
        left, top = (_draw_integers(side - length) for length in (width, height))
        if self.max_shift:
            furthest = self.max_shift * side
            left, top = (start + torch.empty_like(start).uniform_(-furthest, furthest).round() for start in (left, top))
        return left, top, width, height

    def _draw_sizes(self, count: int, side: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return widths and heights: the first of ten draws that fits into the patch, or else the whole patch."""
        area = torch.empty(_DRAWS, count, device=device).uniform_(self.min_area, 1)
        ratio = torch.empty_like(area).uniform_(-_LOG_RATIO, _LOG_RATIO).exp()
        sizes = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()]).mul_(side).round_()
        fits = (sizes <= side).all(0)
        first = fits.byte().argmax(0).expand(2, 1, -1)
        width, height = torch.where(fits.any(0), sizes.gather(1, first)[:, 0], side).clamp(min=1)
        return width, height

    def _draw_flips(self, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Draw which patches to mirror left to right, and which top to bottom; each of shape ``(count,)``."""
        mirrored, flipped = torch.rand(2, count, device=device) < (0.5 if self.flips else 0)
        return mirrored, flipped

    def _resize(self, patches: Tensor) -> Tensor:
        if patches.shape[-1] == self.size:
            return patches
        return torch.cat([self._resize_part(part) for part in torch.split(patches, AT_ONCE)])

    def _resize_part(self, patches: Tensor) -> Tensor:
        """Resize in floating-point numbers, because CUDA cannot resample bytes."""
        size = (self.size, self.size)
        return F.interpolate(patches.float(), size, mode="bilinear", antialias=True).round_().to(torch.uint8)


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

    def draw(self, count: int, side: int, device: torch.device) -> Boxes:
        """Draw one box per group, shared by its patches, and mirror half of the patches."""
        group_of = torch.arange(count, device=device) * self.groups // count
        left, top, width, height = (values[group_of] for values in self._draw_boxes(self.groups, side, device))
        return Boxes(left, top, width, height, *self._draw_flips(count, device))

    def _draw_flips(self, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        half = count // 2 if self.flips else 0
        mirrored, flipped = (torch.randperm(count, device=device) < half for _ in range(2))
        return mirrored, flipped


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


def _draw_integers(largest: Tensor) -> Tensor:
    """Draw a whole number from 0 to each of ``largest``, all equally likely."""
    return torch.minimum((torch.rand_like(largest) * (largest + 1)).floor(), largest)
