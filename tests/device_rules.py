"""Modes that refuse, on a CPU, operations that fail on a GPU or synchronise with it.

They see every operation that PyTorch executes: in the package, in Lightning and in torchmetrics, in the forward and the
backward pass. The rules are those of PyTorch's CUDA kernels (``AT_DISPATCH_…`` in ``aten/src/ATen/native/cuda``) for the
first tensor among an operation's arguments.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

#: Operations with CUDA kernels for floating-point numbers only, by the beginning of their names.
FLOAT_ONLY = (
    "_upsample_", "upsample_bilinear", "upsample_bicubic", "upsample_linear", "upsample_trilinear", "grid_sampler",
    "affine_grid", "mm", "bmm", "addmm", "addmv", "addbmm", "baddbmm", "mv", "dot", "vdot", "_addmm", "linalg_", "_linalg_",
    "convolution", "_convolution", "avg_pool", "_adaptive_avg_pool", "adaptive_max_pool", "max_pool2d_with_indices",
    "max_pool3d_with_indices", "native_batch_norm", "_native_batch_norm", "_batch_norm", "native_layer_norm",
    "native_group_norm", "_softmax", "_log_softmax", "logcumsumexp", "reflection_pad", "replication_pad", "im2col", "col2im",
    "lerp", "_scaled_dot_product", "cudnn_", "_cdist",
)  # fmt: skip
#: Operations without CUDA kernels for half precision; those that the CPU refuses too need no rule.
NO_HALF = ("histc",)
#: Operations for whose result the CPU waits until the GPU has finished all queued work.
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique", "unique_", "bincount", "equal", "is_nonzero")
#: Python methods that wait too, and do not appear among the operations on a CPU.
WAITING_METHODS = ("cpu", "numpy", "tolist", "item", "__bool__", "__float__", "__int__", "__index__", "__array__")

_HALF = (torch.float16, torch.bfloat16)


class CudaHasNoKernelError(Exception):
    """An operation fails on a GPU."""


class WaitsForDeviceError(Exception):
    """An operation synchronises with a GPU."""


class KernelsOfCuda(TorchDispatchMode):
    """Refuse operations on data types for which CUDA has no kernel."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        first = next((one for one in args if isinstance(one, Tensor)), None)
        if first is not None and _is_refused(name, first.dtype):
            raise CudaHasNoKernelError(f"{name} of {first.dtype}, shape {tuple(first.shape)}")
        return func(*args, **(kwargs or {}))


class NothingWaits(TorchDispatchMode):
    """Refuse operations that wait for a GPU."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name.startswith(WAITS) or (name.startswith(("index", "_index_put")) and _by_mask(args)):
            raise WaitsForDeviceError(f"{name} of shape {[tuple(a.shape) for a in args if isinstance(a, Tensor)]}")
        return func(*args, **(kwargs or {}))


class NothingLeavesTheDevice(TorchFunctionMode):
    """Refuse methods that copy a tensor to the CPU."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") in WAITING_METHODS and isinstance(args[0], Tensor):
            raise WaitsForDeviceError(f"Tensor.{func.__name__}")
        return func(*args, **(kwargs or {}))


def _is_refused(name: str, dtype: torch.dtype) -> bool:
    is_integer = not dtype.is_floating_point and not dtype.is_complex
    return (is_integer and name.startswith(FLOAT_ONLY)) or (dtype in _HALF and name.startswith(NO_HALF))


def _by_mask(args: Sequence[Any]) -> bool:
    """Return whether an index is a mask, whose true elements must be counted first."""
    indices = args[1] if len(args) > 1 and isinstance(args[1], (list, tuple)) else []
    return any(isinstance(one, Tensor) and one.dtype in (torch.bool, torch.uint8) for one in indices)
