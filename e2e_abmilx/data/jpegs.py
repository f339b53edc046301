"""JPEG streams of patches, which the device decodes."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple, Self

import imagecodecs
import numpy as np
import torch
from torch import Tensor

from e2e_abmilx.errors import InputError


class Jpegs(NamedTuple):
    """JPEG streams in one buffer, so that processes exchange one tensor instead of hundreds.

    Attributes:
        data: The concatenated streams, uint8.
        sizes: Bytes of each stream, shape ``(M,)``.
    """

    data: Tensor
    sizes: Tensor

    @classmethod
    def of(cls, streams: Sequence[bytes]) -> Self:
        """Copy streams into one buffer."""
        data = np.frombuffer(b"".join(streams), np.uint8).copy()
        return cls(torch.from_numpy(data), torch.tensor([len(stream) for stream in streams]))

    def decode(self, device: torch.device) -> Tensor:
        """Decode all streams, with nvJPEG on a CUDA device, otherwise on the CPU.

        Returns:
            Pixels, uint8, shape ``(M, 3, S, S)``, on the device.

        Raises:
            InputError: A CUDA device needs torchcodec, which cannot be imported.
        """
        streams = list(torch.split(self.data, self.sizes.tolist()))
        if device.type == "cuda":
            decoders = import_decoders()
            # On some GPUs (H100) nvJPEG's hardware engine ignores the CUDA stream and writes into memory that earlier
            # kernels still read. A host barrier is the only known protection (pytorch/vision #9606, torchcodec #1634).
            torch.cuda.current_stream(device).synchronize()
            return torch.stack(list(decoders.decode_jpeg(streams, mode="RGB", device=device)))
        pixels = np.stack([imagecodecs.jpeg8_decode(stream.numpy().tobytes()) for stream in streams])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)


def import_decoders() -> Any:  # noqa: ANN401 - torchcodec may be absent
    """Import torchcodec's decoders, for CUDA devices.

    Raises:
        InputError: torchcodec cannot be imported, or is too old.
    """
    try:
        decoders = import_module("torchcodec.decoders")
        decoders.decode_jpeg  # noqa: B018 - older releases decode only videos
        return decoders
    # a torchcodec built for another torch raises RuntimeError or OSError
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        raise InputError(
            f"data.decode_on_device needs torchcodec 0.16 or later, which cannot be imported ({error}); install it with"
            " `pip install 'e2e-abmilx[gpu]'`, or let the workers decode (data.decode_on_device: false)"
        ) from error


def join_jpegs(parts: Sequence[Jpegs]) -> Jpegs:
    """Join several buffers into one, in order."""
    return Jpegs(*(torch.cat(column) for column in zip(*parts, strict=True)))
