import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from e2e_abmilx.augment import Normalize
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


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("prefix", ["encoder.model.", "module.encoder.model.", "model."])
def test_authors_weights_see_bgr(name: str, prefix: str) -> None:
    torch.manual_seed(0)
    authors = ResNetEncoder(name, pretrained=False).eval()
    state: dict[str, object] = {f"{prefix}{key}": value for key, value in authors.model.state_dict().items()}
    head = (
        {"mil.proj.weight": torch.zeros(1), "module.mil.proj.weight": torch.zeros(1)}
        if "encoder" in prefix
        else {}
    )
    rgb = torch.randint(0, 256, (2, 3, 32, 32))
    as_they_see_it = Normalize(authors.mean, authors.std)(rgb.flip(1))  # BGR pixels, RGB means
    for checkpoint in ({**state, **head}, {"model": {**state, **head}, "epoch": 3}):
        ours = ResNetEncoder.from_reference(checkpoint, channel_order="bgr").eval()
        with torch.no_grad():
            found = ours(Normalize(ours.mean, ours.std)(rgb))
            torch.testing.assert_close(found, authors(as_they_see_it), rtol=1e-5, atol=1e-5)
    plain = ResNetEncoder.from_reference(state, channel_order="rgb")
    assert torch.equal(plain.model.conv1.weight, authors.model.conv1.weight)
    assert plain.mean == authors.mean


def test_other_reference_weights_are_refused() -> None:
    with pytest.raises(InputError, match="the reference weights do not fit"):
        ResNetEncoder.from_reference({"encoder.model.conv1.weight": torch.zeros(1)}, channel_order="rgb")
