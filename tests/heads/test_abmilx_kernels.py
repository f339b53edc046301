"""ABMILX never uses an attention kernel that holds N×N numbers."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from e2e_abmilx.heads import ABMILX

FUSED_ON_CUDA = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
every_case = [
    pytest.mark.parametrize("head_features", [64, 3, 256]),
    pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"]),
    pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16]),
    pytest.mark.parametrize("autocast", [False, True], ids=["cast", "autocast"]),
]


def train_and_infer(device: str, head_features: int, dtype: torch.dtype, *, masked: bool, autocast: bool) -> None:
    """Run forward and backward, then forward without gradient; fails if only the N×N kernel is applicable."""
    head = ABMILX(16, 2, hidden_features=2 * head_features, num_heads=2).to(
        device, torch.float32 if autocast else dtype
    )
    features = torch.randn(2, 301, 16, device=device, dtype=next(head.parameters()).dtype, requires_grad=True)
    mask = torch.rand(2, 301, device=device) < 0.7 if masked else None
    with torch.autocast(device, dtype=dtype, enabled=autocast and dtype != torch.float32):
        head(features, mask).float().sum().backward()
        with torch.inference_mode():
            head(features, mask)
    assert features.grad is not None
    assert features.grad.isfinite().all()


def for_every_case(test):
    for parametrize in every_case:
        test = parametrize(test)
    return test


@for_every_case
def test_fused_on_cpu(head_features: int, masked: bool, dtype: torch.dtype, autocast: bool) -> None:
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        train_and_infer("cpu", head_features, dtype, masked=masked, autocast=autocast)


@pytest.mark.filterwarnings("ignore:Flash attention")  # PyTorch warns about the reason
def test_one_column_value_is_not_fused_on_cpu() -> None:
    """The control: without the additional columns the restriction above raises."""
    query = torch.randn(1, 2, 30, 8)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION), pytest.raises(RuntimeError, match="No available kernel"):
        F.scaled_dot_product_attention(query, query, query[..., :1])


@pytest.mark.gpu
@needs_cuda
@for_every_case
def test_fused_on_cuda(head_features: int, masked: bool, dtype: torch.dtype, autocast: bool) -> None:
    with sdpa_kernel(FUSED_ON_CUDA):
        train_and_infer("cuda", head_features, dtype, masked=masked, autocast=autocast)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_cuda_equals_cpu(dtype: torch.dtype, masked: bool) -> None:
    torch.manual_seed(0)
    head = ABMILX(64, 2).eval()
    features = torch.randn(2, 1000, 64)
    mask = torch.rand(2, 1000) < 0.7 if masked else None
    expected = head.attend(features, mask)
    with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
        output = head.cuda().attend(features.cuda(), None if mask is None else mask.cuda())
    tolerance = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}[dtype]
    torch.testing.assert_close(output.logits.cpu().float(), expected.logits, atol=tolerance, rtol=tolerance)
    largest = expected.attention.max().item()
    torch.testing.assert_close(output.attention.cpu(), expected.attention, atol=tolerance * largest, rtol=0)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
def test_hundred_thousand_patches_fit_into_two_gigabytes(masked: bool) -> None:
    head = ABMILX(1024, 2).cuda().eval()
    features = torch.randn(1, 100_000, 1024, device="cuda")
    mask = torch.arange(100_000, device="cuda")[None] < 99_000 if masked else None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.inference_mode():
        head(features, mask)
    assert torch.cuda.max_memory_allocated() - before < 2e9
