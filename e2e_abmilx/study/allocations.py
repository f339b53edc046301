"""The peak of the memory that tensors hold, counted as they are made and freed."""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class AllocationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's class has no types
    """Counts the bytes of all tensors that exist while it is entered, each storage once.

    It sees what PyTorch's operations return: activations that the backward pass keeps, gradients, states of optimizers.
    It does not see what an operation uses within itself, such as the workspace of a convolution.

    Args:
        existing: Tensors that exist before, such as the weights.

    Attributes:
        held: Bytes held now.
        peak: Most bytes held so far.
    """

    def __init__(self, existing: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = self.peak = 0
        self._known: set[int] = set()
        for tensor in existing:
            self._count(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        """Run an operation and count what it returns."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return result

    def _count(self, tensor: Tensor) -> None:
        if tensor.device.type == "meta" or tensor.layout != torch.strided:
            return
        storage = tensor.untyped_storage()
        address, size = storage._cdata, storage.nbytes()
        if address in self._known:
            return
        self._known.add(address)
        # PyTorch keeps one Python object per storage, which lives as long as the storage itself
        weakref.finalize(storage, self._free, address, size).atexit = False
        self.held += size
        self.peak = max(self.peak, self.held)

    def _free(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.held -= size
