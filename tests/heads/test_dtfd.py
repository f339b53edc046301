"""DTFD, compared with the paper's two tiers, computed in loops over pseudo-bags."""

import pytest
import torch
from torch import Tensor, nn

from e2e_abmilx.heads import DTFD

D, K, M = 5, 3, 4


@pytest.fixture
def head() -> DTFD:
    torch.manual_seed(0)
    return DTFD(D, K, hidden_features=7, attention_features=4, num_pseudo_bags=M).double().eval()


def gated_attention(tier: nn.Module, hidden: list[Tensor]) -> Tensor:
    scores = []
    for h in hidden:
        tanh = torch.tanh(tier.tanh_units.weight @ h + tier.tanh_units.bias)
        gate = torch.sigmoid(tier.gate.weight @ h + tier.gate.bias)
        scores.append((tier.weigh.weight[0] @ (tanh * gate)).exp())
    return torch.stack(scores) / sum(scores)


@pytest.mark.parametrize("num_patches", [4, 5, 11, 16])
@torch.no_grad()
def test_equals_both_tiers(head: DTFD, num_patches: int) -> None:
    features = torch.randn(num_patches, D).double()
    hidden = [(head.embed[0].weight @ patch + head.embed[0].bias).relu() for patch in features]
    assigned = [list(range(m, num_patches, M)) for m in range(M)]
    distilled, within = [], []
    for members in assigned:
        within.append(gated_attention(head.first_tier, [hidden[n] for n in members]))
        distilled.append(sum(a * hidden[n] for a, n in zip(within[-1], members, strict=True)))
    over = gated_attention(head.second_tier, distilled)
    embedding = sum(b * z for b, z in zip(over, distilled, strict=True))
    attention = torch.zeros(num_patches).double()
    for members, a, b in zip(assigned, within, over, strict=True):
        attention[members] = a * b

    output = head.attend(features.unsqueeze(0))
    torch.testing.assert_close(output.embedding[0], embedding, atol=1e-12, rtol=0)
    torch.testing.assert_close(output.attention[0, 0], attention, atol=1e-12, rtol=0)
    logits = head.classifier.weight @ embedding + head.classifier.bias
    torch.testing.assert_close(output.logits[0], logits, atol=1e-12, rtol=0)
    pseudo = [head.pseudo_classifier.weight @ z + head.pseudo_classifier.bias for z in distilled]
    torch.testing.assert_close(output.auxiliary[0], torch.stack(pseudo), atol=1e-12, rtol=0)


def test_loss_is_the_sum_of_both_tiers(head: DTFD) -> None:
    output, label = head.attend(torch.randn(2, 9, D).double()), torch.tensor([2, 0])

    def bag_loss(logits: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, label)

    first_tier = nn.functional.cross_entropy(output.auxiliary.flatten(0, 1), label.repeat_interleave(M))
    expected = bag_loss(output.logits) + first_tier
    torch.testing.assert_close(head.training_loss(output, bag_loss, label), expected)


@pytest.mark.parametrize("training", [False, True])
def test_each_patch_is_in_one_pseudo_bag_of_even_size(head: DTFD, training: bool) -> None:
    real = torch.rand(20, 30) < 0.8
    assigned = head.train(training)._assign(real)
    torch.testing.assert_close(assigned.sum(dim=1), real.long())
    sizes = assigned.sum(dim=2)
    assert (sizes.amax(dim=1) - sizes.amin(dim=1) <= 1).all()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("num_patches", [1, 2, 3])
def test_few_patches_leave_no_pseudo_bag_empty(head: DTFD, training: bool, num_patches: int) -> None:
    assigned = head.train(training)._assign(torch.ones(1, num_patches, dtype=torch.bool))
    assert (assigned.sum(dim=2) == 1).all()
    assert assigned.any(dim=1).all()


def test_training_assigns_anew_and_repeats_with_the_seed(head: DTFD) -> None:
    real = torch.ones(1, 50, dtype=torch.bool)
    head.train()
    torch.manual_seed(3)
    first, second = head._assign(real), head._assign(real)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(head._assign(real), first)
