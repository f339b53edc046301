"""JPEG streams of patches on their way to the device that decodes them."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple, Self

import imagecodecs
import numpy as np
import torch
from torch import Tensor

from e2e_abmilx.errors import InputError


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
        """Decode all streams: on a CUDA device by nvJPEG, else on the CPU.

        Returns:
            Pixels, uint8, shape ``(M, 3, S, S)``, on the device.

        Raises:
            InputError: The device is a CUDA device, and torchcodec cannot be imported.
        """
        streams = list(torch.split(self.data, self.sizes.tolist()))
        if device.type == "cuda":
            return torch.stack(_decode_on_cuda(streams, device))
        pixels = np.stack([imagecodecs.jpeg8_decode(stream.numpy().tobytes()) for stream in streams])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)


def import_decoders() -> Any:  # noqa: ANN401 - torchcodec may be absent
    """Import the decoders of a CUDA device.

    Raises:
        InputError: torchcodec cannot be imported, or is too old.
    """
    try:
        decoders = import_module("torchcodec.decoders")
        decoders.decode_jpeg  # noqa: B018 - older releases decode films only
        return decoders
    except (
        ImportError,
        AttributeError,
        RuntimeError,
        OSError,
    ) as error:  # the last two: made for another torch
        raise InputError(
            f"data.decode_on_device needs torchcodec 0.16 or later, which cannot be imported ({error}); install it with"
            " `pip install 'e2e-abmilx[gpu]'`, or leave decoding to the readers (data.decode_on_device: false)"
        ) from error


def join_jpegs(parts: Sequence[Jpegs]) -> Jpegs:
    """One buffer of several, in their order."""
    return Jpegs(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _decode_on_cuda(streams: list[Tensor], device: torch.device) -> list[Tensor]:
    """Decode streams that lie in the memory of the CPU by one call of nvJPEG."""
    decoders = import_decoders()
    # On some GPUs (H100) nvJPEG's hardware engine does not wait for the stream: it writes into memory that kernels
    # before it still read. A host barrier is the only protection known (pytorch/vision #9606, torchcodec #1634).
    torch.cuda.current_stream(device).synchronize()
    return list(decoders.decode_jpeg(streams, mode="RGB", device=device))
