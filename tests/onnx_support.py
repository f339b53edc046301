"""Whether this PyTorch can write ONNX files for bags of any size."""

import pytest
import torch

needs_onnx = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 11), reason="capturing graphs needs PyTorch 2.11"
)
