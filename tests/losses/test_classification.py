"""Weighted cross-entropy and masked binary cross-entropy, against torch and the definition."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from e2e_abmilx.losses import MaskedBCE, WeightedCrossEntropy, masked_bce


def test_weighted_cross_entropy_equals_torch() -> None:
    logits, label = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    ours = WeightedCrossEntropy([1.0, 2.0, 0.5], label_smoothing=0.1)(logits, label)
    theirs = torch.nn.functional.cross_entropy(logits, label, weight=torch.tensor([1.0, 2.0, 0.5]), label_smoothing=0.1)
    torch.testing.assert_close(ours, theirs)


def _slow_bce(logits: Tensor, label: list[list[int]], weight: list[float]) -> Tensor:
    """Return the cross-entropy from its definition, label by label."""
    costs = []
    for row, truth in zip(logits, label, strict=True):
        for k, one in enumerate(truth):
            probability = 1 / (1 + (-row[k]).exp())
            if one == 1:
                costs.append(-weight[k] * probability.log())
            elif one == 0:
                costs.append(-(1 - probability).log())
    return (logits * 0).sum() + sum(costs) / logits.numel()


labelled = st.lists(st.tuples(*[st.tuples(st.floats(-5, 5), st.sampled_from([0, 1, -1]))] * 3), min_size=1, max_size=6)


@given(labelled, st.sampled_from([None, [1.0, 3.0, 0.25]]))
def test_masked_bce_equals_its_definition(
    rows: list[tuple[tuple[float, int], ...]], weight: list[float] | None
) -> None:
    values = [[value for value, _ in row] for row in rows]
    label = [[one for _, one in row] for row in rows]
    ours, slow = (torch.tensor(values, dtype=torch.float64, requires_grad=True) for _ in range(2))
    loss, wanted = (MaskedBCE(weight).double()(ours, torch.tensor(label)), _slow_bce(slow, label, weight or [1.0] * 3))
    torch.testing.assert_close(loss, wanted, rtol=0, atol=1e-12)
    loss.backward()
    wanted.backward()
    torch.testing.assert_close(ours.grad, slow.grad, rtol=0, atol=1e-12)
    assert ours.grad is not None
    assert (ours.grad[torch.tensor(label) < 0] == 0).all()


def test_masked_bce_equals_torch_if_all_labels_are_known() -> None:
    logits, label = torch.randn(6, 3), torch.randint(0, 2, (6, 3))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, label.float())
    torch.testing.assert_close(masked_bce(logits, label), expected)


def test_masked_bce_of_extreme_and_half_precision_logits() -> None:
    logits = torch.tensor([[1e4, -1e4, 1e4]], requires_grad=True)
    masked_bce(logits, torch.tensor([[0, 1, -1]])).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[1 / 3, -1 / 3, 0.0]]))
    half = torch.randn(4, 2).bfloat16()
    label = torch.tensor([[0, 1], [-1, 1], [1, 0], [0, -1]])
    assert masked_bce(half, label).dtype == torch.float32
    assert masked_bce(half, label) == masked_bce(half.float(), label)


def test_masked_bce_of_a_batch_is_the_mean_over_its_bags() -> None:
    """This holds for any unknown labels, so several processes or accumulated batches equal one large batch."""
    logits, label = torch.randn(8, 3), torch.randint(-1, 2, (8, 3))
    alone = torch.stack([masked_bce(logits[[bag]], label[[bag]]) for bag in range(8)])
    torch.testing.assert_close(masked_bce(logits, label), alone.mean())
    assert masked_bce(logits, torch.full((8, 3), -1)) == 0


def test_positive_weights_are_a_buffer_of_the_loss() -> None:
    assert list(MaskedBCE([1.0, 2.0]).state_dict()) == ["positive_weight"]
    assert not MaskedBCE().state_dict()
