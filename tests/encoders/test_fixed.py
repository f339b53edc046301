"""Encoders that are not trained."""

import torch

from e2e_abmilx.data.bag import Bag
from e2e_abmilx.encoders import FrozenEncoder, Precomputed, ResNetEncoder
from e2e_abmilx.heads import ABMILX
from e2e_abmilx.tasks import ClassificationTask


def _batch(seed: int, lengths: list[int]) -> Bag:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    patches = torch.randint(0, 256, (*mask.shape, 3, 32, 32), dtype=torch.uint8, generator=generator)
    zeros, label = torch.zeros(mask.shape, dtype=torch.long), torch.arange(len(lengths)) % 2
    coords = torch.stack([zeros, zeros], dim=-1)
    return Bag(patches, mask, zeros, coords, label, label.float(), label, ("a", "b")[: len(lengths)], True)


def test_training_does_not_change_a_frozen_encoder() -> None:
    inner = ResNetEncoder(pretrained=False)
    task = ClassificationTask(
        FrozenEncoder(inner), lambda width, outputs: ABMILX(width, outputs, hidden_features=32, num_heads=4), 2
    ).train()
    before = {key: value.clone() for key, value in inner.state_dict().items()}
    bag = _batch(1, [5, 9])
    task.bag_loss(task(bag).logits, bag).backward()
    (group,) = task._parameter_groups()
    assert {id(parameter) for parameter in group["params"]} == {id(value) for value in task.head.parameters()}
    for key, value in inner.state_dict().items():
        assert torch.equal(value, before[key])
    assert task.encoder.mean == inner.mean


def test_precomputed_returns_its_input() -> None:
    features = torch.rand(4, 8)
    assert Precomputed(8).num_features == 8
    assert torch.equal(Precomputed(8)(features), features)
    assert not list(Precomputed(8).parameters())


def test_a_frozen_encoder_stays_in_evaluation_mode() -> None:
    encoder = FrozenEncoder(ResNetEncoder(pretrained=False)).train()
    assert encoder.training
    assert not any(layer.training for layer in encoder.encoder.modules())
    assert not encoder(torch.rand(2, 3, 32, 32)).requires_grad
