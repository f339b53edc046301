"""The precision in which losses are computed."""

import torch
from torch import Tensor


def _at_least_float32(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
