"""ResNetEncoder and TimmEncoder: sizes, modes, and the authors' weights."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from e2e_abmilx.encoders import ResNetEncoder, TimmEncoder
from e2e_abmilx.encoders.augment import Normalize
from e2e_abmilx.errors import InputError


@pytest.mark.parametrize(
    ("name", "parameters", "features"), [("resnet18", 2_782_784, 256), ("resnet50", 8_543_296, 1024)]
)
def test_sizes_equal_those_of_the_paper(name: str, parameters: int, features: int) -> None:
    encoder = ResNetEncoder(name, pretrained=False)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == parameters
    assert encoder.num_features == features
    assert encoder(torch.rand(2, 3, 64, 64)).shape == (2, features)


def test_unreachable_hub_error_names_three_cures(tmp_path: Path) -> None:
    code = "from e2e_abmilx import ResNetEncoder; ResNetEncoder('resnet18.tv_in1k', pretrained=True)"
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path)}  # read when the hub is imported
    result = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert re.search(r"InputError: .*pretrained: false.*weights: FILE.*hub's cache", result.stderr)


def test_any_timm_model_can_be_the_encoder() -> None:
    encoder = TimmEncoder("test_vit", pretrained=False)
    assert encoder(torch.rand(2, 3, 160, 160)).shape == (2, encoder.num_features)


def test_frozen_norms_neither_update_statistics_nor_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    encoder = ResNetEncoder(pretrained=False, frozen_norms=True)
    assert encoder.train().model.training
    patches = torch.rand(6, 3, 32, 32)
    before = {key: value.clone() for key, value in encoder.named_buffers()}
    features = encoder(patches)
    torch.testing.assert_close(features[:2], encoder(patches[:2]), rtol=1e-5, atol=1e-5)
    features.sum().backward()
    assert encoder.model.bn1.weight.grad is not None
    for key, value in encoder.named_buffers():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("prefix", ["encoder.model.", "module.encoder.model.", "model."])
def test_reference_weights_with_bgr_channels_give_the_authors_features(name: str, prefix: str) -> None:
    torch.manual_seed(0)
    authors = ResNetEncoder(name, pretrained=False).eval()
    state: dict[str, object] = {f"{prefix}{key}": value for key, value in authors.model.state_dict().items()}
    head = {"mil.proj.weight": torch.zeros(1), "module.mil.proj.weight": torch.zeros(1)} if "encoder" in prefix else {}
    rgb = torch.randint(0, 256, (2, 3, 32, 32))
    authors_input = Normalize(authors.mean, authors.std)(rgb.flip(1))  # BGR pixels, RGB means
    for checkpoint in ({**state, **head}, {"model": {**state, **head}, "epoch": 3}):
        ours = ResNetEncoder.from_reference(checkpoint, channel_order="bgr").eval()
        with torch.no_grad():
            found = ours(Normalize(ours.mean, ours.std)(rgb))
            torch.testing.assert_close(found, authors(authors_input), rtol=1e-5, atol=1e-5)
    plain = ResNetEncoder.from_reference(state, channel_order="rgb")
    assert torch.equal(plain.model.conv1.weight, authors.model.conv1.weight)
    assert plain.mean == authors.mean


def test_other_reference_weights_are_refused() -> None:
    with pytest.raises(InputError, match="the reference weights do not fit"):
        ResNetEncoder.from_reference({"encoder.model.conv1.weight": torch.zeros(1)}, channel_order="rgb")
