"""Encoding in chunks: any number of patches in the memory of one chunk, with exact gradients.

Letters: M patches of any number of bags, S patch side, D encoder features.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint as checkpoint_activations


def encode_in_chunks(
    encoder: Callable[[Tensor], Tensor], patches: Tensor, chunk_size: int, *, checkpoint: bool = False
) -> Tensor:
    """Encode patches chunk by chunk.

    The sizes of the chunks differ by at most one patch, because BatchNorm normalises each chunk by its own statistics,
    and those of a small remainder would be unreliable. With ``checkpoint``, activations are recomputed in the backward
    pass instead of kept. Gradients and BatchNorm buffers equal those of the same chunks without it, because the second
    forward pass does not update the running statistics.

    Args:
        encoder: Any function; if it is a module, its BatchNorm layers are found.
        patches: Pixels, shape ``(M, 3, S, S)``.
        chunk_size: Largest number of patches in a chunk.
        checkpoint: Use gradient checkpointing: less memory for one more forward pass.

    Returns:
        Features, shape ``(M, D)``.

    Raises:
        ValueError: ``chunk_size`` is below 1.
    """
    chunks = torch.tensor_split(patches, count_chunks(len(patches), chunk_size))
    return encode_chunks(encoder, chunks, checkpoint=checkpoint)


def count_chunks(patches: int, chunk_size: int) -> int:
    """Return the number of chunks that hold ``patches`` patches; at least 1. Errors as in :func:`encode_in_chunks`."""
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; it counts patches and must be at least 1")
    return max(1, math.ceil(patches / chunk_size))


def encode_chunks(encoder: Callable[[Tensor], Tensor], chunks: Sequence[Tensor], *, checkpoint: bool = False) -> Tensor:
    """Encode chunks of patches, each of shape ``(m, 3, S, S)``; otherwise as :func:`encode_in_chunks`."""
    if not (checkpoint and torch.is_grad_enabled()):
        return torch.cat([encoder(chunk) for chunk in chunks])
    norms = batch_norms_of(encoder)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _running_statistics_frozen(norms)

    return torch.cat(
        [checkpoint_activations(encoder, chunk, use_reentrant=False, context_fn=contexts) for chunk in chunks]
    )


def batch_norms_of(encoder: Callable[[Tensor], Tensor]) -> list[_BatchNorm]:
    """Return the BatchNorm layers of an encoder; an empty list for a plain function."""
    modules = encoder.modules() if isinstance(encoder, nn.Module) else ()
    return [layer for layer in modules if isinstance(layer, _BatchNorm)]


@contextlib.contextmanager
def _running_statistics_frozen(norms: list[_BatchNorm]) -> Iterator[None]:
    """Let BatchNorm layers normalise by the batch, as in training, without updating their running statistics."""
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, (_, tracked) in zip(norms, kept, strict=True):
        norm.momentum = 0.0
        # a copy, because SyncBatchNorm requires a counter and adds to it
        norm.num_batches_tracked = None if tracked is None else tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked
