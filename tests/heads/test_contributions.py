"""Contributions, compared with a loop that leaves each patch out of the mean."""

import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import e2e_abmilx.heads
from e2e_abmilx.heads import (
    ABMIL,
    ABMILX,
    CLAM,
    DSMIL,
    DTFD,
    RRTMIL,
    BagHead,
    ContributionError,
    GatedABMIL,
    MaxPool,
    MeanMLP,
    MeanPool,
    MultiBranchCLAM,
    PoolingHead,
    TransMIL,
    leave_one_out,
    log_odds,
)
from e2e_abmilx.losses import survival_risk

D, K = 24, 3
POOLING: dict[str, Callable[[int, int], PoolingHead]] = {
    "ABMIL": partial(ABMIL, hidden_features=32, attention_features=8),
    "GatedABMIL": partial(GatedABMIL, hidden_features=32, attention_features=8),
    "ABMILX": partial(ABMILX, hidden_features=32, num_heads=4),
    "ABMILX with ffn": partial(ABMILX, hidden_features=15, num_heads=5, ffn=True, norm=False, bias=True),
    "CLAM": partial(CLAM, hidden_features=32, attention_features=8),
    "MultiBranchCLAM": partial(MultiBranchCLAM, hidden_features=32, attention_features=8),
    "MeanPool": MeanPool,
    "MeanMLP": partial(MeanMLP, hidden_features=32),
}
OTHERS = [DSMIL, DTFD, MaxPool, RRTMIL, TransMIL]


def head_of(name: str) -> PoolingHead:
    torch.manual_seed(0)
    head = POOLING[name](D, K).double().eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return head


def number_of_heads(head: PoolingHead) -> int:
    return head.attend(torch.zeros(1, 1, D).double()).attention.shape[1]


def slow_reference(head: PoolingHead, bag: Tensor, attention: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
    """Return contributions to a bag ``(N, D)``: leave out each patch and rescale the other weights to sum to 1."""
    values = head.values(bag[None])[0].expand(-1, len(attention), -1)

    def score_of(kept: list[int]) -> Tensor:
        pooled = torch.zeros(values.shape[1:], dtype=values.dtype)
        for row, weights in enumerate(attention[:, kept]):
            for patch, weight in zip(kept, weights, strict=True):
                pooled[row] += weight / weights.sum() * values[patch, row]
        return score(head.classify(pooled[None]))[0]

    everything = list(range(len(bag)))
    rows = [score_of(everything) - score_of([n for n in everything if n != left_out]) for left_out in everything]
    return torch.stack(rows)


def test_every_head_is_listed_once() -> None:
    exported = [getattr(e2e_abmilx.heads, name) for name in e2e_abmilx.heads.__all__]
    heads = {one for one in exported if isinstance(one, type) and issubclass(one, BagHead)}
    pooling = {type(head_of(name)) for name in POOLING}
    abstract = {one for one in heads if one.__abstractmethods__}
    assert heads - abstract == pooling | set(OTHERS)


@pytest.mark.parametrize("name", POOLING)
def test_values_and_classify_give_the_logits(name: str) -> None:
    head, features = head_of(name), torch.randn(2, 9, D).double()
    output = head.attend(features)
    pooled = (output.attention.transpose(1, 2).unsqueeze(-1) * head.values(features)).sum(dim=1)
    torch.testing.assert_close(head.classify(pooled), output.logits, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", POOLING)
@torch.no_grad()
def test_contributions_equal_the_slow_reference(name: str) -> None:
    head, features = head_of(name), torch.randn(2, 7, D).double()
    found = head.contributions(features)
    assert found.shape == (2, 7, K)
    for bag, attention, contributions in zip(features, head.attend(features).attention, found, strict=True):
        expected = slow_reference(head, bag, attention, lambda logits: logits)
        torch.testing.assert_close(contributions, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", POOLING)
@pytest.mark.parametrize("score", [survival_risk, partial(log_odds, output=1)], ids=["risk", "log-odds"])
@torch.no_grad()
def test_contributions_to_a_score_equal_the_slow_reference(name: str, score: Callable[[Tensor], Tensor]) -> None:
    head, bag = head_of(name), torch.randn(7, D).double()
    (attention,) = head.attend(bag[None]).attention
    found = leave_one_out(head, bag, attention, score)
    assert found.shape == (7,)
    torch.testing.assert_close(found, slow_reference(head, bag, attention, score), atol=1e-10, rtol=0)


@given(
    st.sampled_from(sorted(POOLING)),
    st.integers(2, 6).flatmap(
        lambda n: st.lists(st.floats(0.01, 1), min_size=n * 5, max_size=n * 5).map(
            lambda weights: torch.tensor(weights, dtype=torch.float64).reshape(5, n)
        )
    ),
    st.integers(0, 99),
)
@torch.no_grad()
def test_any_attention_over_a_small_bag(name: str, weights: Tensor, seed: int) -> None:
    head = head_of(name)
    bag = torch.randn(weights.shape[1], D, generator=torch.Generator().manual_seed(seed)).double()
    attention = weights[: head.attend(bag[None]).attention.shape[1]]
    attention = attention / attention.sum(dim=1, keepdim=True)
    found = leave_one_out(head, bag, attention, lambda logits: logits)
    expected = slow_reference(head, bag, attention, lambda logits: logits)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("head_class", OTHERS)
def test_heads_that_do_not_classify_a_mean_are_refused_and_others_named(head_class: type[BagHead]) -> None:
    head, bag = head_class(D, K).eval(), torch.randn(5, D)
    message = re.escape(
        f"{head_class.__name__} does not classify a mean of its patches, so no patch can be left out of it; take ABMIL"
    )
    with pytest.raises(ContributionError, match=message):
        head.contributions(bag[None])
    with pytest.raises(ContributionError, match=message):
        leave_one_out(head, bag, torch.full((1, 5), 0.2), survival_risk)
    named = re.search(r"take (.*) or a PoolingHead", str(ContributionError(head)))
    assert named
    assert set(named[1].split(", ")) == {type(head_of(name)).__name__ for name in POOLING}


def test_weighted_contributions_of_linear_heads_sum_to_zero() -> None:
    r"""There :math:`(1 - a_n) c_n = a_n w (v_n - z)`, which sums to 0."""
    head, features = head_of("GatedABMIL"), torch.randn(1, 50, D).double()
    attention = head.attend(features).attention
    balance = ((1 - attention[0, 0])[:, None] * head.contributions(features)[0]).sum(dim=0)
    torch.testing.assert_close(balance, torch.zeros(K).double(), atol=1e-12, rtol=0)


def test_chunks_do_not_change_contributions() -> None:
    head, bag = head_of("ABMILX"), torch.randn(2500, D).double()
    (attention,) = head.attend(bag[None]).attention
    found = leave_one_out(head, bag, attention, survival_risk)
    order = torch.randperm(2500)
    shuffled = leave_one_out(head, bag[order], attention[:, order], survival_risk)
    torch.testing.assert_close(shuffled, found[order], atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", POOLING)
@torch.no_grad()
def test_a_single_patch_is_compared_with_zeros(name: str) -> None:
    head, features = head_of(name), torch.randn(1, 1, D).double()
    nothing = head.classify(torch.zeros_like(head.values(features)[0]).expand(1, number_of_heads(head), -1))
    expected = head(features) - nothing
    torch.testing.assert_close(head.contributions(features)[:, 0], expected, atol=1e-12, rtol=0)


def test_zeros_remain_of_an_attention_head_with_all_its_attention_on_one_patch() -> None:
    head, bag = head_of("ABMILX"), torch.randn(3, D).double()
    attention = torch.tensor([[1.0, 0, 0], [0.2, 0.3, 0.5], [1.0, 0, 0], [0.1, 0.1, 0.8]], dtype=torch.float64)
    values = head.values(bag[None])[0]
    pooled = (attention.T[..., None] * values).sum(dim=0)
    without = torch.stack(
        [
            torch.zeros_like(values[0, 0]),
            0.375 * values[1, 1] + 0.625 * values[2, 1],
            torch.zeros_like(values[0, 0]),
            (values[1, 3] + 8 * values[2, 3]) / 9,
        ]
    )
    expected = (head.classify(pooled[None]) - head.classify(without[None]))[0]
    found = leave_one_out(head, bag, attention, lambda logits: logits)
    torch.testing.assert_close(found[0], expected, atol=1e-10, rtol=0)
    assert found.isfinite().all()


def test_contributions_of_a_hand_made_head_find_the_lesion_and_not_the_attention() -> None:
    """Feature 0 marks the lesion and raises class 1; feature 1 raises the attention but no class."""
    head = ABMIL(2, 2, hidden_features=2, attention_features=1)
    with torch.no_grad():
        head.embed[0].weight.copy_(torch.eye(2))
        head.tanh_units.weight.copy_(torch.tensor([[0.5, 1.0]]))
        head.weigh.weight.fill_(3)
        head.classifier.weight.copy_(torch.tensor([[0.0, 0.0], [4.0, 0.0]]))
        for bias in (head.embed[0].bias, head.tanh_units.bias, head.classifier.bias):
            bias.zero_()
    lesion = torch.arange(100) < 10
    bag = torch.where(lesion[:, None], torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0]))
    bag[90:] = torch.tensor([0.0, 1.0])
    (attention,) = head.eval().attend(bag[None]).attention
    assert attention[0, 90:].min() > attention[0, lesion].max()
    contributions = leave_one_out(head, bag, attention, partial(log_odds, output=1))
    assert (contributions[lesion] > 0).all()
    assert (contributions[~lesion] < 0).all()
    assert (leave_one_out(head, bag, attention, partial(log_odds, output=0))[lesion] < 0).all()


def test_log_odds_are_those_of_the_probability() -> None:
    logits = torch.randn(5, 4).double()
    probability = logits.softmax(dim=1)
    for k in range(4):
        torch.testing.assert_close(log_odds(logits, k), torch.logit(probability[:, k]))


def test_contributions_are_those_in_evaluation_and_keep_the_training_mode() -> None:
    head = ABMIL(D, K).train()
    features = torch.randn(1, 9, D)
    found = head.contributions(features)
    assert head.training
    assert head.classifier.weight.dtype == torch.float32
    assert torch.equal(found, head.eval().contributions(features))
    assert not found.requires_grad


def test_a_hundred_thousand_patches_need_little_memory() -> None:
    code = """
import resource, torch
from e2e_abmilx.heads import GatedABMIL, leave_one_out, log_odds
torch.manual_seed(0)
head, bag = GatedABMIL(1024, 2, hidden_features=128), torch.randn(100_000, 1024)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
attention = torch.rand(1, 100_000).softmax(dim=1)
assert leave_one_out(head, bag, attention, lambda logits: log_odds(logits, 1)).isfinite().all()
print(before // 1024, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before_mib, peak_mib = map(int, found.stdout.split())
    print(f"{before_mib} MiB with the features, {peak_mib} MiB at most")
    assert peak_mib - before_mib < 150
    assert peak_mib < 3 * 1024
