"""JPEG streams of patches on their way to the device that decodes them."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg


class Jpegs(NamedTuple):
    """Streams in one buffer, which passes between processes as one tensor and not as hundreds.

    Attributes:
        data: The bytes of all streams, uint8, one after another.
        sizes: Bytes of each, shape ``(M,)``.
    """

    data: Tensor
    sizes: Tensor

    @classmethod
    def of(cls, streams: Sequence[bytes]) -> Self:
        """Put streams into a buffer."""
        data = np.frombuffer(b"".join(streams), np.uint8).copy()
        return cls(torch.from_numpy(data), torch.tensor([len(stream) for stream in streams]))

    def decode(self, device: torch.device) -> Tensor:
        """Decode all streams there: by nvJPEG on a CUDA device.

        Returns:
            Pixels, uint8, shape ``(M, 3, S, S)``.
        """
        streams = list(torch.split(self.data, self.sizes.tolist()))  # the decoder wants them in CPU memory
        if device.type == "cuda":
            return torch.stack(decode_jpeg(streams, ImageReadMode.RGB, device=device))
        return torch.stack([decode_jpeg(stream, ImageReadMode.RGB) for stream in streams]).to(device)


def join_jpegs(parts: Sequence[Jpegs]) -> Jpegs:
    """One buffer of several, in their order."""
    return Jpegs(*(torch.cat(column) for column in zip(*parts, strict=True)))
