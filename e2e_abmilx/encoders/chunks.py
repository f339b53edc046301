"""Encode any number of patches with the memory of one chunk, with exact gradients.

Letters: M patches of any number of bags, S patch side, D features.
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
    """Encode any number of patches with the memory of one chunk.

    Chunks are of equal size, to within one patch: BatchNorm takes its statistics from each chunk, and those of a small
    remainder would be its own. With ``checkpoint``, activations are computed
    again in the backward pass instead of kept: gradients and BatchNorm buffers are exactly those of the same
    chunks without it, because the second pass leaves the running statistics alone.

    Args:
        encoder: The encoder; a module whose BatchNorm layers are to be found, or any function.
        patches: Pixels, shape ``(M, 3, S, S)``.
        chunk_size: Patches in a chunk, at most.
        checkpoint: Trade one more forward pass for the activation memory.

    Returns:
        Features, shape ``(M, D)``.

    Raises:
        ValueError: The chunk size is below 1.
    """
    return encode_chunks(
        encoder, torch.tensor_split(patches, count_chunks(len(patches), chunk_size)), checkpoint=checkpoint
    )


def count_chunks(patches: int, chunk_size: int) -> int:
    """How many chunks patches are cut into; at least 1.

    Args:
        patches: Number of patches.
        chunk_size: Patches in a chunk, at most.

    Raises:
        ValueError: The chunk size is below 1.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; it counts patches and must be at least 1")
    return max(1, math.ceil(patches / chunk_size))


def encode_chunks(
    encoder: Callable[[Tensor], Tensor], chunks: Sequence[Tensor], *, checkpoint: bool = False
) -> Tensor:
    """As :func:`encode_in_chunks`, of chunks that were cut already.

    Args:
        encoder: The encoder.
        chunks: Pixels, each of shape ``(m, 3, S, S)``.
        checkpoint: Trade one more forward pass for the activation memory.

    Returns:
        Features, shape ``(M, D)``.
    """
    if not (checkpoint and torch.is_grad_enabled()):
        return torch.cat([encoder(chunk) for chunk in chunks])
    norms = batch_norms_of(encoder)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _running_statistics_kept(norms)

    return torch.cat(
        [checkpoint_activations(encoder, chunk, use_reentrant=False, context_fn=contexts) for chunk in chunks]
    )


def batch_norms_of(encoder: Callable[[Tensor], Tensor]) -> list[_BatchNorm]:
    """The BatchNorm layers of an encoder; none of a plain function."""
    modules = encoder.modules() if isinstance(encoder, nn.Module) else ()
    return [layer for layer in modules if isinstance(layer, _BatchNorm)]


@contextlib.contextmanager
def _running_statistics_kept(norms: list[_BatchNorm]) -> Iterator[None]:
    """BatchNorm layers normalise by the batch, as in training, but do not update their running statistics."""
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, (_, tracked) in zip(norms, kept, strict=True):
        norm.momentum = 0.0
        norm.num_batches_tracked = (
            None if tracked is None else tracked.clone()
        )  # SyncBatchNorm insists on one
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked
