"""CLAM and MultiBranchCLAM, compared with the methods section of their paper, computed in loops over patches."""

import math

import pytest
import torch
from torch import Tensor

from e2e_abmilx.heads import CLAM, GatedABMIL, MultiBranchCLAM

D, K, B = 5, 3, 2


def head_of(make: type[CLAM], *, exclusive: bool = False) -> CLAM:
    torch.manual_seed(0)
    head = make(D, K, hidden_features=7, attention_features=4, num_instances=B, exclusive=exclusive)
    return head.double().eval()


def smooth_svm(scores: Tensor, label: int) -> float:
    """Return the smooth top-1 SVM loss with τ = α = 1, as its sum over the classes."""
    return math.log(sum(math.exp((j != label) + scores[j] - scores[label]) for j in range(len(scores))))


def instance_loss(head: CLAM, hidden: Tensor, scores: Tensor, label: int) -> float:
    """Return the paper's instance loss of a bag with hidden features ``(N, C)`` and attention scores ``(K, N)``."""
    drawn = min(B, len(hidden) // 2)
    weights = head.instance_classifier.weight.reshape(K, 2, -1)
    biases = head.instance_classifier.bias.reshape(K, 2)
    costs = []
    for k in range(K):
        order = sorted(range(len(hidden)), key=lambda n, k=k: float(scores[k, n]), reverse=True)
        strong, weak = order[:drawn], order[len(order) - drawn :]
        instance_scores = [weights[k] @ h + biases[k] for h in hidden]
        if k == label:
            own = [smooth_svm(instance_scores[n], 1) for n in strong] + [
                smooth_svm(instance_scores[n], 0) for n in weak
            ]
            costs.append(sum(own) / max(len(own), 1))
        elif head.exclusive:
            costs.append(sum(smooth_svm(instance_scores[n], 0) for n in strong) / max(drawn, 1))
    return sum(costs) / len(costs)


@pytest.mark.parametrize("make", [CLAM, MultiBranchCLAM])
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("num_patches", [1, 2, 3, 4, 20])
@torch.no_grad()
def test_equals_the_equations(make: type[CLAM], exclusive: bool, num_patches: int) -> None:
    head = head_of(make, exclusive=exclusive)
    features, label = torch.randn(2, num_patches, D).double(), torch.tensor([2, 0])
    output = head.attend(features)
    losses = []
    for bag in range(2):
        hidden = (features[bag] @ head.embed[0].weight.T + head.embed[0].bias).relu()
        tanh = torch.tanh(hidden @ head.tanh_units.weight.T + head.tanh_units.bias)
        gate = torch.sigmoid(hidden @ head.gate.weight.T + head.gate.bias)
        scores = ((tanh * gate) @ head.weigh.weight.T).T
        attention = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
        branches = [attention[min(k, len(attention) - 1)] for k in range(K)]
        gathered = [sum(a * h for a, h in zip(branch, hidden, strict=True)) for branch in branches]
        logits = [head.classifier.weight[k] @ gathered[k] + head.classifier.bias[k] for k in range(K)]
        torch.testing.assert_close(output.attention[bag], attention, atol=1e-12, rtol=0)
        torch.testing.assert_close(output.logits[bag], torch.stack(logits), atol=1e-12, rtol=0)
        losses.append(instance_loss(head, hidden, scores.expand(K, -1), int(label[bag])))
    loss = head.training_loss(output, torch.Tensor.sum, label)
    expected = 0.7 * float(output.logits.sum()) + 0.3 * sum(losses) / 2
    assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_without_instance_loss_it_equals_gated_abmil() -> None:
    head = head_of(CLAM)
    twin = GatedABMIL(D, K, hidden_features=7, attention_features=4).double().eval()
    twin.load_state_dict({name: value for name, value in head.state_dict().items() if "instance" not in name})
    features = torch.randn(2, 9, D).double()
    torch.testing.assert_close(head(features), twin(features))


def test_instance_loss_gives_no_gradient_to_the_attention() -> None:
    """Attention labels the patches, and must not learn to choose patches that are easy to label."""
    head = head_of(MultiBranchCLAM, exclusive=True)
    output = head.attend(torch.randn(1, 9, D).double())
    head.training_loss(output, lambda logits: logits.sum() * 0, torch.tensor([1])).backward()
    assert not head.weigh.weight.grad.any()
    assert head.instance_classifier.weight.grad.abs().sum() > 0
    assert head.embed[0].weight.grad.abs().sum() > 0


def test_padding_is_never_drawn() -> None:
    head = head_of(CLAM, exclusive=True)
    bag = torch.randn(1, 6, D).double()
    padded = torch.cat([bag, torch.zeros(1, 30, D).double()], dim=1)
    mask = torch.arange(36)[None] < 6
    torch.testing.assert_close(head.attend(padded, mask).auxiliary, head.attend(bag).auxiliary)
