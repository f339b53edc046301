"""DSMIL, compared with Section 3.2 of its paper, computed in loops over patches."""

import math

import pytest
import torch

from e2e_abmilx.heads import DSMIL

D, K, C = 5, 3, 7


@pytest.fixture
def head() -> DSMIL:
    torch.manual_seed(0)
    return DSMIL(D, K, hidden_features=C, query_features=4).double().eval()


@torch.no_grad()
def test_equals_the_equations(head: DSMIL) -> None:
    features = torch.randn(11, D).double()
    hidden = [(head.embed[0].weight @ patch + head.embed[0].bias).relu() for patch in features]
    scores = [head.instance_classifier.weight @ h + head.instance_classifier.bias for h in hidden]
    first, second = head.query[0], head.query[2]
    queries = [torch.tanh(second.weight @ (first.weight @ h + first.bias).relu() + second.bias) for h in hidden]
    values = [(head.value[0].weight @ h + head.value[0].bias).relu() for h in hidden]
    critical = [max(range(11), key=lambda n, k=k: float(scores[n][k])) for k in range(K)]
    assert len(set(critical)) > 1, "draw another bag: the outputs should have different critical patches"

    attention, sums = torch.zeros(K, 11).double(), []
    for k in range(K):
        likeness = [math.exp(q @ queries[critical[k]] / math.sqrt(4)) for q in queries]
        attention[k] = torch.tensor(likeness, dtype=torch.float64) / sum(likeness)
        sums.append(sum(a * v for a, v in zip(attention[k], values, strict=True)))
    critical_logits = torch.stack([scores[critical[k]][k] for k in range(K)])
    bag_logits = head.classifier.weight @ torch.cat(sums) + head.classifier.bias

    output = head.attend(features.unsqueeze(0))
    torch.testing.assert_close(output.attention[0], attention, atol=1e-12, rtol=0)
    torch.testing.assert_close(output.embedding[0], torch.cat(sums), atol=1e-12, rtol=0)
    torch.testing.assert_close(output.auxiliary[0], torch.stack([critical_logits, bag_logits]))
    torch.testing.assert_close(output.logits[0], (critical_logits + bag_logits) / 2, atol=1e-12, rtol=0)


def test_loss_is_the_mean_over_both_streams(head: DSMIL) -> None:
    output = head.attend(torch.randn(2, 6, D).double())
    label = torch.tensor([2, 0])
    loss = head.training_loss(output, lambda logits: torch.nn.functional.cross_entropy(logits, label), label)
    streams = [torch.nn.functional.cross_entropy(output.auxiliary[:, i], label) for i in (0, 1)]
    torch.testing.assert_close(loss, 0.5 * streams[0] + 0.5 * streams[1])


def test_padding_cannot_be_critical(head: DSMIL) -> None:
    """The score of zeros is the bias, here higher than that of any patch."""
    torch.nn.init.constant_(head.instance_classifier.bias, 5.0)
    torch.nn.init.constant_(head.instance_classifier.weight, -1.0)
    features = torch.randn(1, 4, D).double()
    padded = torch.cat([features, torch.zeros(1, 2, D).double()], dim=1)
    mask = torch.tensor([[True] * 4 + [False] * 2])
    torch.testing.assert_close(head(padded, mask), head(features))
