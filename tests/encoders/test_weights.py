"""Encoder weights from files: what loads, and what is refused."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from e2e_abmilx.encoders import ResNetEncoder
from e2e_abmilx.encoders.weights import load_weight_file, load_weights
from e2e_abmilx.errors import InputError


def test_weights_load_from_a_file(tmp_path: Path) -> None:
    source = ResNetEncoder(pretrained=False)
    torch.save({**source.model.state_dict(), "fc.weight": torch.zeros(1)}, tmp_path / "weights.pt")
    loaded = ResNetEncoder(weights=tmp_path / "weights.pt")
    for key, value in source.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key])


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    state = ResNetEncoder(pretrained=False).model.state_dict()
    state.pop("conv1.weight")
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"1 of 90 tensors are missing.*conv1\.weight"):
        ResNetEncoder(weights=tmp_path / "weights.pt")
    with pytest.raises(InputError, match="no such file"):
        ResNetEncoder(weights=tmp_path / "absent.pt")


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_weights_are_found_inside_a_checkpoint(key: str, tmp_path: Path) -> None:
    source, loaded = nn.Linear(3, 2), nn.Linear(3, 2)
    torch.save({key: source.state_dict(), "epoch": 3}, tmp_path / "checkpoint.pt")
    load_weight_file(loaded, tmp_path / "checkpoint.pt")
    assert torch.equal(loaded.weight, source.weight)


def test_weights_load_from_safetensors(tmp_path: Path) -> None:
    source, loaded = nn.Linear(3, 2), nn.Linear(3, 2)
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    load_weight_file(loaded, tmp_path / "weights.safetensors")
    assert torch.equal(loaded.weight, source.weight)


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": Path("anything")}, tmp_path / "weights.pt")
    with pytest.raises(pickle.UnpicklingError):
        load_weight_file(nn.Linear(3, 2), tmp_path / "weights.pt")


def test_tensors_of_another_shape_are_refused() -> None:
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    with pytest.raises(InputError, match=r"my weights do not fit: 1 of 2 tensors .* \['weight'\]"):
        load_weights(model, {"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}, "my weights")
    assert torch.equal(model.weight, before)
