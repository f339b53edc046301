"""Random crops, flips and normalisation of patches, on the device that they are on.

Letters: M patches, S side of the stored patches, s side after augmentation.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RandomCrops(nn.Module):
    """Random resized crops and flips, one draw a patch; in evaluation the whole patch, resized.

    Geometry only: the paper found that colour augmentation hurts.

    Args:
        size: s, side of the patches that the encoder sees, pixels.
        min_area: Smallest share of a patch's area that a crop may have, in (0, 1].
        flips: Mirror half of the patches left to right and half top to bottom.
    """

    def __init__(self, size: int = 224, *, min_area: float = 0.25, flips: bool = True) -> None:
        super().__init__()
        if not 0 < min_area <= 1:
            raise ValueError(f"min_area is {min_area}; it is a share of the patch and must lie in (0, 1]")
        self.size = size
        self.min_area = min_area
        self.flips = flips

    def forward(self, patches: Tensor) -> Tensor:
        """Crop or resize patches.

        Args:
            patches: Pixels 0 … 255, uint8, shape ``(M, 3, S, S)``.

        Returns:
            Pixels 0 … 255, float32, shape ``(M, 3, s, s)``.
        """
        if self.training:
            return F.grid_sample(
                patches.float(),
                self._random_grid(len(patches), patches.device),
                mode="bilinear",
                align_corners=False,
            )
        if patches.shape[-1] == self.size:
            return patches.float()
        return F.interpolate(patches.float(), (self.size, self.size), mode="bilinear", antialias=True)

    def _random_grid(self, count: int, device: torch.device) -> Tensor:
        """Sampling positions of ``count`` crops, shape ``(count, s, s, 2)``, in [-1, 1]."""

        def uniform(low: float, high: float) -> Tensor:
            return torch.empty(count, device=device).uniform_(low, high)

        side = uniform(self.min_area, 1).sqrt()
        stretch = uniform(-0.2877, 0.2877).exp().sqrt()  # aspect ratios from 3/4 to 4/3
        width, height = (side * stretch).clamp(max=1), (side / stretch).clamp(max=1)
        x, y = (uniform(-1, 1) * (1 - length) for length in (width, height))
        if self.flips:
            width, height = (length * uniform(-1, 1).sign() for length in (width, height))
        zero = torch.zeros_like(x)
        theta = torch.stack([torch.stack([width, zero, x], 1), torch.stack([zero, height, y], 1)], 1)
        return F.affine_grid(theta, [count, 3, self.size, self.size], align_corners=False)


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
        """Normalise patches of shape ``(M, 3, S, S)``; the result is channels last in memory, which is faster."""
        return ((patches - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
