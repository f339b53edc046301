"""The authors' weights in ABMILX: outputs and gradients of their head, and weights that are refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from e2e_abmilx.heads import ABMILX

CASES = ["A_r18_brca_subtyping", "B_r18_brca_survival", "C_r18_panda", "D_r50_panda", "E_readme_two_stage"]


@pytest.fixture(scope="module")
def reference(shared: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(shared / "reference" / "abmilx_reference.pt", weights_only=True)
    return loaded


@pytest.fixture
def weights(reference: dict[str, Any]) -> dict[str, Tensor]:
    """Return the weights for BRCA subtyping."""
    copied: dict[str, Tensor] = dict(reference[CASES[0]]["state_dict"])
    return copied


@pytest.mark.parametrize(("dtype", "suffix", "tolerance"), [(torch.float32, "", 1e-5), (torch.float64, "64", 1e-10)])
@pytest.mark.parametrize("name", CASES)
def test_equals_the_authors(
    reference: dict[str, Any], name: str, dtype: torch.dtype, suffix: str, tolerance: float
) -> None:
    case = reference[name]
    head = ABMILX.from_reference(case["state_dict"], activation=case["kwargs"].get("act", "gelu")).to(dtype).eval()
    features = case["x"].to(dtype, copy=True).requires_grad_()
    output = head.attend(features)
    output.logits.sum().backward()
    actual = {"logits": output.logits, "attn": output.attention, "bag_feat": output.embedding, "grad_x": features.grad}
    for key, value in actual.items():
        torch.testing.assert_close(value, case[key + suffix], atol=tolerance, rtol=0, msg=key)
    assert sum(parameter.numel() for parameter in head.parameters()) == case["n_params"]


@pytest.mark.parametrize("name", CASES)
def test_gradient_norms_equal_the_authors(reference: dict[str, Any], name: str) -> None:
    case = reference[name]
    head = ABMILX.from_reference(case["state_dict"], activation=case["kwargs"].get("act", "gelu")).double().eval()
    head(case["x"].double()).sum().backward()
    ours = sorted(parameter.grad.norm().item() for parameter in head.parameters())
    assert ours == pytest.approx(sorted(case["grad_param_norms64"].values()), abs=1e-10)


def test_weights_are_found_inside_a_checkpoint(reference: dict[str, Any], weights: dict[str, Tensor]) -> None:
    whole = {f"module.mil.{key}": value for key, value in weights.items()}
    whole["module.encoder.model.conv1.weight"] = torch.zeros(64, 3, 7, 7)
    nested = {"model": whole, "epoch": 3}
    features = reference[CASES[0]]["x"]
    plain = ABMILX.from_reference(weights, activation="gelu").eval()
    for state_dict in (nested, whole, {f"mil.{key}": value for key, value in weights.items()}):
        head = ABMILX.from_reference(state_dict, activation="gelu").eval()
        assert torch.equal(head(features), plain(features))


def test_weights_without_refinement_and_with_a_wider_score_mlp(weights: dict[str, Tensor]) -> None:
    local = {key: value for key, value in weights.items() if not key.startswith("attn_plus_fn")}
    local["attention.fc1.weight"], local["attention.fc2.weight"] = torch.randn(11, 4), torch.randn(1, 11)
    head = ABMILX.from_reference(local, activation="relu")
    assert head.attention_plus is None
    assert head.score[0].out_features == 11
    assert isinstance(head.activation, torch.nn.ReLU)


def test_feed_forward_block_of_a_head_without_norm_has_its_own_norm(weights: dict[str, Tensor]) -> None:
    unnormed = {key: value for key, value in weights.items() if key not in ("feature.0.weight", "norm1.weight")}
    unnormed["feature.0.weight"] = unnormed.pop("feature.1.weight")
    sizes = {"mlp.fc1": (128, 32), "mlp.fc2": (32, 128)}
    unnormed |= {f"{name}.weight": torch.randn(shape) for name, shape in sizes.items()}
    unnormed |= {f"{name}.bias": torch.randn(shape[0]) for name, shape in sizes.items()}
    unnormed |= {"norm_ffn.weight": torch.full((32,), 2.0), "norm_ffn.bias": torch.zeros(32)}
    head = ABMILX.from_reference(unnormed, activation="gelu")
    assert torch.equal(head.ffn[0].weight, torch.full((32,), 2.0))


def test_one_score_mlp_for_all_heads_is_refused(reference: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="attn_plus_embed_new=True"):
        ABMILX.from_reference(reference["F_embed_new"]["state_dict"], activation="gelu")


def test_gated_scores_are_refused(weights: dict[str, Tensor]) -> None:
    weights["attention.attention_a.0.weight"] = weights.pop("attention.fc1.weight")
    weights["attention.attention_b.0.weight"] = torch.randn(4, 4)
    weights["attention.attention_c.weight"] = weights.pop("attention.fc2.weight")
    with pytest.raises(ValueError, match="gated"):
        ABMILX.from_reference(weights, activation="gelu")


def test_batch_norm_is_refused(weights: dict[str, Tensor]) -> None:
    weights["norm1.running_mean"] = torch.zeros(32)
    with pytest.raises(ValueError, match=r"cannot place 'norm1.running_mean'"):
        ABMILX.from_reference(weights, activation="gelu")


def test_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match="not the weights of a DAttentionX"):
        ABMILX.from_reference({"fc.weight": torch.zeros(2, 2)}, activation="gelu")
