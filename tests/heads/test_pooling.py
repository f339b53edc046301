"""Mean and maximum pooling, and the equivalent attention."""

import torch

from e2e_abmilx.heads import MaxPool, MeanMLP, MeanPool

BAG = torch.tensor([[[1.0, 5.0, 0.0, 2.0], [3.0, -1.0, -2.0, 1.0], [-9.0, 0.0, -8.0, 0.0]]])


def test_mean() -> None:
    output = MeanPool(4, 2).attend(BAG)
    torch.testing.assert_close(output.embedding, BAG.mean(dim=1))
    torch.testing.assert_close(output.attention, torch.full((1, 1, 3), 1 / 3))


def test_mean_of_real_patches() -> None:
    output = MeanPool(4, 2).attend(BAG, torch.tensor([[True, False, True]]))
    torch.testing.assert_close(output.embedding, BAG[:, [0, 2]].mean(dim=1))
    torch.testing.assert_close(output.attention, torch.tensor([[[0.5, 0.0, 0.5]]]))


def test_mean_with_hidden_layer() -> None:
    head = MeanMLP(4, 2, hidden_features=3).eval()
    output = head.attend(BAG, torch.tensor([[True, False, True]]))
    first = head.hidden[0]
    hidden = (first.weight @ BAG[0, [0, 2]].mean(dim=0) + first.bias).relu()
    torch.testing.assert_close(output.embedding[0], hidden)
    torch.testing.assert_close(output.logits[0], head.classifier.weight @ hidden + head.classifier.bias)


def test_max() -> None:
    output = MaxPool(4, 2).attend(BAG)
    torch.testing.assert_close(output.embedding, torch.tensor([[3.0, 5.0, 0.0, 2.0]]))
    torch.testing.assert_close(output.attention, torch.tensor([[[0.75, 0.25, 0.0]]]))


def test_max_of_real_patches_may_be_negative() -> None:
    """Padding must not provide the maximum with its zeros."""
    output = MaxPool(4, 2).attend(BAG, torch.tensor([[False, False, True]]))
    torch.testing.assert_close(output.embedding, BAG[:, 2])
    torch.testing.assert_close(output.attention, torch.tensor([[[0.0, 0.0, 1.0]]]))
