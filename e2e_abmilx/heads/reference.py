"""The weights of the authors' release, under the names of this package."""

from collections.abc import Mapping

from torch import Tensor


def head_weights(state_dict: Mapping[str, object]) -> dict[str, Tensor]:
    """The authors' weights under our names."""
    nested = state_dict.get("model")
    state_dict = nested if isinstance(nested, Mapping) else state_dict
    bare = {key.removeprefix("module."): value for key, value in state_dict.items()}
    reference = {
        key.removeprefix("mil."): value
        for key, value in bare.items()
        if isinstance(value, Tensor) and not key.startswith("encoder.")
    }
    _refuse_variants(reference)
    normed = reference["feature.0.weight"].ndim == 1  # a LayerNorm comes first
    ours = {
        "feature.0": "input_norm" if normed else "embed",
        "feature.1": "embed",
        "attention.fc1": "score.0",
        "attention.fc2": "score.2",
        "attn_plus_fn.norm_x": "attention_plus.norm",
        "attn_plus_fn.qk": "attention_plus.query_key",
        "proj": "project",
        "norm_ffn": "ffn.0",
        "mlp.fc1": "ffn.1",
        "mlp.fc2": "ffn.3",
        "norm1": "norm",
        "classifier": "classifier",
    }
    alpha = reference.pop("attn_plus_fn.v.weight", None)
    weights = {}
    for key, value in reference.items():
        module, _, parameter = key.rpartition(".")
        if module not in ours or parameter not in ("weight", "bias"):
            raise ValueError(
                f"cannot place '{key}' in an ABMILX: pass the state dict of a DAttentionX without BatchNorm"
            )
        weights[f"{ours[module]}.{parameter}"] = value
    if alpha is not None:
        weights["attention_plus.alpha"] = alpha.reshape(1)
    return weights


def _refuse_variants(reference: Mapping[str, Tensor]) -> None:
    """Say what is wrong with weights that only the authors' ablations, or other heads, have."""
    if any(key.startswith("attention.attention_a") for key in reference):
        raise ValueError(
            "these weights use the gated score MLP of the authors' ablation (attn_type='mlp_gated'), which ABMILX "
            "leaves out: train again with attn_type='mlp'"
        )
    missing = {
        "feature.0.weight",
        "attention.fc1.weight",
        "attention.fc2.weight",
        "classifier.weight",
    } - reference.keys()
    if missing:
        raise ValueError(
            f"not the weights of a DAttentionX: {sorted(missing)} missing; pass its state_dict()"
        )
    if reference["attention.fc2.weight"].shape[0] != 1:
        raise ValueError(
            f"these weights score all {reference['attention.fc2.weight'].shape[0]} heads with one MLP "
            "(attn_plus_embed_new=True, the authors' ablation), which ABMILX leaves out: train again without it"
        )


def encoder_weights(state_dict: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors of the authors' encoder, under timm's names."""
    nested = state_dict.get("model")
    state = nested if isinstance(nested, Mapping) else state_dict
    bare = {str(key).removeprefix("module."): value for key, value in state.items()}
    if any(key.startswith("encoder.") for key in bare):
        bare = {
            key.removeprefix("encoder."): value for key, value in bare.items() if key.startswith("encoder.")
        }
    return {key.removeprefix("model."): value for key, value in bare.items() if isinstance(value, Tensor)}
