"""ABMILX alone for bags of up to 100,000 patches, compared with the authors' formulation, which needs N×N memory."""

import copy
import gc
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from head_memory import FEATURES, HEADS, abmilx
from torch import Tensor

from e2e_abmilx.heads.abmilx import ABMILX, AttentionPlus
from gpu_sections.measure import Peak, prepare, seconds
from gpu_sections.model import autocast
from gpu_sections.rows import Cell, Rows
from gpu_sections.settings import Settings

SIZES, TINY_SIZES = (4_000, 10_000, 20_000, 50_000, 100_000), (64, 128)
MOST_BACKWARD = 20_000
MOST_DIFFERENCE = 0.02  # of the logits of both formulations, due to rounding
MEMORY_TARGET_GB = 2.0  # of the forward pass at N = 100,000


class OneColumn(AttentionPlus):
    """A+ as in the authors' code: A is a value with one column, which no fused kernel accepts."""

    def forward(self, heads: Tensor, scores: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return refined scores as the base class does, for bags without padding."""
        query, key = self.query_key(self.norm(heads)).transpose(1, 2).chunk(2, dim=-1)
        refined = F.scaled_dot_product_attention(query, key, scores.to(query.dtype).unsqueeze(-1))
        return scores + self.alpha * refined.squeeze(-1)


class Cost(NamedTuple):
    """The time and memory of a call."""

    ms: float
    extra_gb: float | None


def run(settings: Settings, rows: Rows) -> None:
    """Measure forward passes in bf16 and float32, then forward and backward passes in bf16."""
    device = prepare(settings.device)
    sizes = TINY_SIZES if settings.tiny else SIZES
    ours = abmilx(settings.device)
    theirs = _one_column(ours)
    rows.note(
        f"D = {FEATURES}, C = 512, {HEADS} heads, one bag. extra: memory above weights and features. authors': U·A with"
        " a one-column value."
    )
    rows.note("A dash in the authors' columns: three N×N matrices per head (with backward six) would not fit.")
    with rows.guard("equality of both formulations"):
        _check_equal(ours, theirs, sizes[0], device)
    for precision, backward in (("bf16-mixed", False), ("32-true", False), ("bf16-mixed", True)):
        for size in sizes:
            if backward and size > MOST_BACKWARD:
                continue
            with rows.guard(f"N = {size:,}, {precision}"):
                _measure(rows, (ours, theirs), size, precision, backward=backward)


def _measure(rows: Rows, heads: tuple[ABMILX, ABMILX], size: int, precision: str, *, backward: bool) -> None:
    device = next(heads[0].parameters()).device
    features = torch.randn(1, size, FEATURES, device=device, requires_grad=backward)
    passes = "forward + backward" if backward else "forward"
    row: dict[str, Cell] = {"N": size, "passes": passes, "precision": precision}
    ours = _cost(_call(heads[0], features, precision, backward=backward), device, size)
    theirs = None
    if _fits(size, device, backward=backward):
        theirs = _cost(_call(heads[1], features, precision, backward=backward), device, size)
    row |= {"ABMILX, ms": ours.ms, "extra GB": ours.extra_gb}
    row |= {"authors', ms": theirs and theirs.ms, "their extra GB": theirs and theirs.extra_gb}
    rows.add(row | {"times faster": theirs and theirs.ms / ours.ms})
    if size == max(SIZES) and precision == "32-true" and ours.extra_gb is not None:
        name = f"ABMILX forward at N = {size:,}, {precision}, extra GB"
        rows.target(name, ours.extra_gb, at_most=MEMORY_TARGET_GB)


def _call(head: ABMILX, features: Tensor, precision: str, *, backward: bool) -> Callable[[], object]:
    def forward() -> object:
        with torch.inference_mode(), autocast(features.device, precision):
            return head(features)

    def both() -> object:
        with autocast(features.device, precision):
            loss = head(features).sum()
        loss.backward()
        head.zero_grad()
        features.grad = None
        return loss

    return both if backward else forward


def _cost(call: Callable[[], object], device: torch.device, size: int) -> Cost:
    call()
    with Peak(device) as peak:
        call()
    each = seconds(call, device, times=3 if size > MOST_BACKWARD else 10, warm_up=1)
    return Cost(1000 * each, peak.extra_gb)


def _one_column(head: ABMILX) -> ABMILX:
    twin = copy.deepcopy(head)
    assert head.attention_plus is not None
    plus = OneColumn(head.attention_plus.norm.normalized_shape[0]).to(next(head.parameters()).device)
    plus.load_state_dict(head.attention_plus.state_dict())
    twin.attention_plus = plus
    return twin.eval()


def _check_equal(ours: ABMILX, theirs: ABMILX, size: int, device: torch.device) -> None:
    features = torch.randn(1, size, FEATURES, device=device)
    with torch.inference_mode():
        difference = float((ours(features) - theirs(features)).abs().max())
    assert difference < MOST_DIFFERENCE, f"logits differ by {difference} at N = {size}"


def _fits(size: int, device: torch.device, *, backward: bool) -> bool:
    """Check that the fallback of PyTorch, which computes in float32, has enough memory."""
    needed = (6 if backward else 3) * HEADS * size**2 * 4
    if device.type != "cuda":
        return True
    gc.collect()
    torch.cuda.empty_cache()
    return needed < torch.cuda.mem_get_info(device)[0]
