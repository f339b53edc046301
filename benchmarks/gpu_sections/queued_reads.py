"""Does decoding on a CUDA device write into memory that queued kernels still read?

On some GPUs nvJPEG's hardware engine does not wait for the stream that it is given (pytorch/vision #9606). A tensor that was freed after its
last use was queued, but before that has run, is memory that the decoder may get, and then write too early.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from e2e_abmilx.data.jpegs import Jpegs

BUSY_CYCLES = 200_000_000  # of the device's clock: about a tenth of a second
TENSORS = 128
VALUE = 7  # of each pixel that is read

Decode = Callable[[Jpegs], object]


def decoders(device: torch.device) -> dict[str, Decode]:
    """The library's decoding, and others beside it, which show whether a device would spoil anything."""

    def torchcodec(streams: Jpegs) -> object:
        from torchcodec.decoders import decode_jpeg

        return decode_jpeg(_split(streams), mode="RGB", device=device)

    def torchvision(streams: Jpegs) -> object:
        from torchvision.io import ImageReadMode, decode_jpeg

        return decode_jpeg(_split(streams), mode=ImageReadMode.RGB, device=device)

    return {
        "the library": lambda streams: streams.decode(device),
        "torchcodec without the library's barrier": torchcodec,
        "torchvision without any": torchvision,
    }


def count_spoilt(decode: Decode, streams: Jpegs, device: torch.device, *, times: int) -> int:
    """Count the times that queued sums came out wrong because their tensors were overwritten.

    Args:
        decode: Decodes on the device, into the memory that the tensors have left.
        streams: JPEG streams.
        device: A CUDA device.
        times: How often.
    """
    some = Jpegs(streams.data[: int(streams.sizes[:TENSORS].sum())], streams.sizes[:TENSORS])
    shape = Jpegs(some.data[: int(some.sizes[0])], some.sizes[:1]).decode(torch.device("cpu")).shape[1:]
    decode(some)  # what the first call allocates
    spoilt = 0
    for _ in range(times):
        sums = _queue_sums(tuple(shape), device)
        decode(some)
        spoilt += int((sums != VALUE * shape.numel()).any())
    return spoilt


def _queue_sums(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Sums of tensors of that shape, which will run when the device has time; the tensors are freed at once."""
    tensors = [torch.full(shape, VALUE, dtype=torch.uint8, device=device) for _ in range(TENSORS)]
    torch.cuda.synchronize(device)
    torch.cuda._sleep(BUSY_CYCLES)
    return torch.stack([tensor.sum(dtype=torch.int64) for tensor in tensors])


def _split(streams: Jpegs) -> list[Tensor]:
    return list(torch.split(streams.data, streams.sizes.tolist()))
