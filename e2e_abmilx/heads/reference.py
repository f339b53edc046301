"""The weights of the authors' release, of head and encoder, under the names of this package."""

from collections.abc import Mapping

from torch import Tensor

#: Modules of ``DAttentionX`` in the authors' code → modules of ABMILX; ``feature.0`` depends on the variant.
_HEAD_MODULES = {
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


def head_weights(state_dict: Mapping[str, object]) -> dict[str, Tensor]:
    """Return the authors' head weights under the names of :class:`~e2e_abmilx.heads.ABMILX`.

    Raises:
        ValueError: The weights are those of a variant that ABMILX does not support, or of another head.
    """
    reference = {
        key.removeprefix("mil."): value for key, value in _tensors(state_dict).items() if not key.startswith("encoder.")
    }
    _refuse_variants(reference)
    starts_with_norm = reference["feature.0.weight"].ndim == 1
    modules = {"feature.0": "input_norm" if starts_with_norm else "embed", **_HEAD_MODULES}
    alpha = reference.pop("attn_plus_fn.v.weight", None)
    weights = {}
    for key, value in reference.items():
        module, _, parameter = key.rpartition(".")
        if module not in modules or parameter not in ("weight", "bias"):
            raise ValueError(
                f"cannot place '{key}' in an ABMILX: pass the state dict of a DAttentionX without BatchNorm"
            )
        weights[f"{modules[module]}.{parameter}"] = value
    if alpha is not None:
        weights["attention_plus.alpha"] = alpha.reshape(1)
    return weights


def encoder_weights(state_dict: Mapping[str, object]) -> dict[str, Tensor]:
    """Return the authors' encoder weights under timm's names; without the prefix ``encoder.``, take all weights."""
    tensors = _tensors(state_dict)
    own = {key: value for key, value in tensors.items() if key.startswith("encoder.")} or tensors
    return {key.removeprefix("encoder.").removeprefix("model."): value for key, value in own.items()}


def _tensors(state_dict: Mapping[str, object]) -> dict[str, Tensor]:
    """Return the tensors of a state dict, which may lie under ``"model"``, without the prefix ``module.``."""
    nested = state_dict.get("model")
    state = nested if isinstance(nested, Mapping) else state_dict
    return {key.removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)}


def _refuse_variants(reference: Mapping[str, Tensor]) -> None:
    """Refuse the weights of other heads and of the authors' ablations."""
    if any(key.startswith("attention.attention_a") for key in reference):
        raise ValueError(
            "these weights use the gated score MLP of the authors' ablation (attn_type='mlp_gated'), which ABMILX "
            "does not support: train again with attn_type='mlp'"
        )
    required = {"feature.0.weight", "attention.fc1.weight", "attention.fc2.weight", "classifier.weight"}
    missing = required - reference.keys()
    if missing:
        raise ValueError(f"not the weights of a DAttentionX: {sorted(missing)} missing; pass its state_dict()")
    if reference["attention.fc2.weight"].shape[0] != 1:
        raise ValueError(
            f"these weights score all {reference['attention.fc2.weight'].shape[0]} heads with one MLP "
            "(attn_plus_embed_new=True, the authors' ablation), which ABMILX does not support: train again without it"
        )
