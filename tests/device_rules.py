"""What a GPU cannot do, or can do only while everything waits, refused on a CPU that can.

Two modes see every operation that PyTorch carries out: in the package, in Lightning, in torchmetrics, forwards and
backwards. The rules are those of PyTorch's CUDA kernels (``AT_DISPATCH_…`` in ``aten/src/ATen/native/cuda``), for what
comes first among an operation's arguments.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

#: Floating-point numbers only, by the beginning of the operation's name.
FLOAT_ONLY = (
    "_upsample_", "upsample_bilinear", "upsample_bicubic", "upsample_linear", "upsample_trilinear", "grid_sampler",
    "affine_grid", "mm", "bmm", "addmm", "addmv", "addbmm", "baddbmm", "mv", "dot", "vdot", "_addmm", "linalg_", "_linalg_",
    "convolution", "_convolution", "avg_pool", "_adaptive_avg_pool", "adaptive_max_pool", "max_pool2d_with_indices",
    "max_pool3d_with_indices", "native_batch_norm", "_native_batch_norm", "_batch_norm", "native_layer_norm",
    "native_group_norm", "_softmax", "_log_softmax", "logcumsumexp", "reflection_pad", "replication_pad", "im2col", "col2im",
    "lerp", "_scaled_dot_product", "cudnn_", "_cdist",
)  # fmt: skip
#: Nothing of half precision; what the CPU refuses too needs no rule, such as decompositions, transforms and medians of masks.
NO_HALF = ("histc",)
#: To answer, the CPU must wait until the GPU has done all that was queued.
WAITS = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "_unique",
    "unique_",
    "bincount",
    "equal",
    "is_nonzero",
)
#: So do these of Python's, which on a CPU leave no trace among the operations.
WAITING_METHODS = (
    "cpu",
    "numpy",
    "tolist",
    "item",
    "__bool__",
    "__float__",
    "__int__",
    "__index__",
    "__array__",
)

_HALF = (torch.float16, torch.bfloat16)


class CudaHasNoKernelError(Exception):
    """An operation that fails on a GPU."""


class WaitsForDeviceError(Exception):
    """An operation that stalls a GPU."""


class KernelsOfCuda(TorchDispatchMode):
    """Refuse operations on kinds of numbers that CUDA has no kernel for."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = func.overloadpacket.__name__
        first = next((one for one in args if isinstance(one, Tensor)), None)
        if first is not None and _is_refused(name, first.dtype):
            raise CudaHasNoKernelError(f"{name} of {first.dtype}, shape {tuple(first.shape)}")
        return func(*args, **(kwargs or {}))


class NothingWaits(TorchDispatchMode):
    """Refuse operations for which a GPU would be waited for."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = func.overloadpacket.__name__
        if name.startswith(WAITS) or (name.startswith(("index", "_index_put")) and _by_mask(args)):
            raise WaitsForDeviceError(
                f"{name} of shape {[tuple(a.shape) for a in args if isinstance(a, Tensor)]}"
            )
        return func(*args, **(kwargs or {}))


class NothingLeavesTheDevice(TorchFunctionMode):
    """Refuse methods that bring a tensor to the CPU."""

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__name__", "") in WAITING_METHODS and isinstance(args[0], Tensor):
            raise WaitsForDeviceError(f"Tensor.{func.__name__}")
        return func(*args, **(kwargs or {}))


def _is_refused(name: str, dtype: torch.dtype) -> bool:
    whole = not dtype.is_floating_point and not dtype.is_complex
    return (whole and name.startswith(FLOAT_ONLY)) or (dtype in _HALF and name.startswith(NO_HALF))


def _by_mask(args: Sequence[Any]) -> bool:
    """Whether an index is a mask, which must be counted first."""
    indices = args[1] if len(args) > 1 and isinstance(args[1], (list, tuple)) else []
    return any(isinstance(one, Tensor) and one.dtype in (torch.bool, torch.uint8) for one in indices)
