"""A test whether decoding on a CUDA device writes into memory that queued kernels still read.

On some GPUs nvJPEG's hardware engine does not wait for its stream (pytorch/vision #9606). If a tensor is freed while its
last use is still queued, the decoder may get its memory and write into it before the queued kernel has read it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from e2e_abmilx.data.jpegs import Jpegs

BUSY_CYCLES = 200_000_000  # cycles of the device's clock: about a tenth of a second
TENSORS = 128
VALUE = 7  # of every pixel

Decode = Callable[[Jpegs], object]


def decoders(device: torch.device) -> dict[str, Decode]:
    """Return the library's decoder, and two unsafe decoders that show whether a device has the problem."""

    def torchcodec(streams: Jpegs) -> object:
        from torchcodec.decoders import decode_jpeg

        return decode_jpeg(_split(streams), mode="RGB", device=device)

    def torchvision(streams: Jpegs) -> object:
        from torchvision.io import ImageReadMode, decode_jpeg

        return decode_jpeg(_split(streams), mode=ImageReadMode.RGB, device=device)

    return {
        "the library": lambda streams: streams.decode(device),
        "torchcodec without the library's barrier": torchcodec,
        "torchvision without a barrier": torchvision,
    }


def count_overwritten(decode: Decode, streams: Jpegs, device: torch.device, *, times: int) -> int:
    """Count the times that queued sums came out wrong because their tensors were overwritten.

    Args:
        decode: Decodes on the device, into the memory that the tensors have freed.
        streams: JPEG streams.
        device: A CUDA device.
        times: Number of repetitions.
    """
    some = Jpegs(streams.data[: int(streams.sizes[:TENSORS].sum())], streams.sizes[:TENSORS])
    shape = Jpegs(some.data[: int(some.sizes[0])], some.sizes[:1]).decode(torch.device("cpu")).shape[1:]
    decode(some)  # the first call allocates memory
    overwritten = 0
    for _ in range(times):
        sums = _queue_sums(tuple(shape), device)
        decode(some)
        overwritten += int((sums != VALUE * shape.numel()).any())
    return overwritten


def _queue_sums(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Queue sums of tensors on the busy device; the tensors are freed before the sums are computed."""
    tensors = [torch.full(shape, VALUE, dtype=torch.uint8, device=device) for _ in range(TENSORS)]
    torch.cuda.synchronize(device)
    torch.cuda._sleep(BUSY_CYCLES)
    return torch.stack([tensor.sum(dtype=torch.int64) for tensor in tensors])


def _split(streams: Jpegs) -> list[Tensor]:
    return list(torch.split(streams.data, streams.sizes.tolist()))
