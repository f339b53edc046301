"""Transfer of batches to the device, where JPEG streams are decoded."""

from collections.abc import Callable

import torch

from e2e_abmilx.data.bag import Bag
from e2e_abmilx.data.jpegs import Jpegs


def decode_patches(batch: Bag, device: torch.device) -> Bag:
    """Decode the JPEG streams of a batch on the device; return any other batch unchanged."""
    if not isinstance(batch.patches, Jpegs):
        return batch
    pixels = batch.patches.decode(device)
    patches = pixels.new_zeros(batch.mask.numel(), *pixels.shape[1:])
    patches[batch.positions().to(device)] = pixels
    return batch._replace(patches=patches.view(*batch.mask.shape, *pixels.shape[1:]))


class AsyncCopy:
    """Copies batches to a CUDA device on a separate stream, so that the copy overlaps with computation."""

    def __init__(self) -> None:
        self._stream: torch.cuda.Stream | None = None

    def __call__(self, copy: Callable[[], Bag], device: torch.device) -> Bag:
        """Run ``copy`` on the separate stream; work queued afterwards waits for it."""
        if self._stream is None or self._stream.device != device:
            self._stream = torch.cuda.Stream(device)
        with torch.cuda.stream(self._stream):
            moved = copy()
        current = torch.cuda.current_stream(device)
        current.wait_stream(self._stream)
        for value in moved:
            if isinstance(value, torch.Tensor):
                value.record_stream(current)  # otherwise the next copy could reuse its memory too early
        return moved
