import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from e2e_abmilx.encoders import Precomputed, ResNetEncoder, encode_in_chunks
from e2e_abmilx.errors import InputError


@pytest.mark.parametrize(
    ("name", "parameters", "features"), [("resnet18", 2_782_784, 256), ("resnet50", 8_543_296, 1024)]
)
def test_sizes_are_the_papers(name: str, parameters: int, features: int) -> None:
    encoder = ResNetEncoder(name, pretrained=False)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == parameters
    assert encoder.num_features == features
    assert encoder(torch.rand(2, 3, 64, 64)).shape == (2, features)


def test_weights_from_a_file(tmp_path: Path) -> None:
    source = ResNetEncoder(pretrained=False)
    torch.save({**source.model.state_dict(), "fc.weight": torch.zeros(1)}, tmp_path / "weights.pt")
    loaded = ResNetEncoder(weights=tmp_path / "weights.pt")
    for key, value in source.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key])


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = ResNetEncoder(pretrained=False).model.state_dict()
    state.pop("conv1.weight")
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"1 of 90 tensors are missing.*conv1\.weight"):
        ResNetEncoder(weights=tmp_path / "weights.pt")
    with pytest.raises(InputError, match="no such file"):
        ResNetEncoder(weights=tmp_path / "absent.pt")


def test_unreachable_hub_names_three_cures(tmp_path: Path) -> None:
    code = "from e2e_abmilx import ResNetEncoder; ResNetEncoder('resnet18.tv_in1k', pretrained=True)"
    offline = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": str(tmp_path),
    }  # read when the hub is imported
    result = subprocess.run(
        [sys.executable, "-c", code], env=offline, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert re.search(r"InputError: .*pretrained: false.*weights: FILE.*hub's cache", result.stderr)


def _run(chunk_size: int, *, checkpoint: bool) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Features, parameter gradients and buffers of one training step."""
    torch.manual_seed(0)
    encoder = ResNetEncoder(pretrained=False).train()
    patches = torch.rand(10, 3, 32, 32)
    features = encode_in_chunks(encoder, patches, chunk_size, checkpoint=checkpoint)
    (features * torch.linspace(0, 1, features.numel()).view_as(features)).sum().backward()
    gradients = {
        name: parameter.grad for name, parameter in encoder.named_parameters() if parameter.grad is not None
    }
    return features, gradients, dict(encoder.named_buffers())


@pytest.mark.parametrize("chunk_size", [3, 5, 10])
def test_recomputing_changes_neither_gradients_nor_batchnorm(chunk_size: int) -> None:
    features, gradients, buffers = _run(chunk_size, checkpoint=False)
    other_features, other_gradients, other_buffers = _run(chunk_size, checkpoint=True)
    torch.testing.assert_close(other_features, features)
    assert len(gradients) == len(other_gradients) == 45
    for name, gradient in gradients.items():
        torch.testing.assert_close(other_gradients[name], gradient, rtol=1e-6, atol=1e-6)
    for name, buffer in buffers.items():
        torch.testing.assert_close(other_buffers[name], buffer, rtol=1e-6, atol=1e-6)


def test_chunks_change_nothing_in_evaluation() -> None:
    encoder = ResNetEncoder(pretrained=False).eval()
    patches = torch.rand(7, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            encode_in_chunks(encoder, patches, 3), encoder(patches), rtol=1e-5, atol=1e-5
        )


def test_any_function_is_an_encoder() -> None:
    assert encode_in_chunks(lambda x: x.mean((2, 3)), torch.rand(5, 3, 4, 4), 2).shape == (5, 3)
    assert isinstance(Precomputed(8), nn.Module)
    features = torch.rand(4, 8)
    assert torch.equal(Precomputed(8)(features), features)
    with pytest.raises(ValueError, match="chunk_size is 0"):
        encode_in_chunks(lambda x: x, features, 0)
