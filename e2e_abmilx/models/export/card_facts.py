"""What a model card says: the facts of the input contract, of the run's record and of its settings, in words."""

from collections.abc import Iterator, Mapping
from typing import Any

from e2e_abmilx.models.export.markdown import code


def summary(contract: Mapping[str, Any]) -> str:
    """Return one sentence on what the model is."""
    words, taken = contract.get("model") or {}, contract.get("input") or {}
    encoder, head = (str(words.get(name, "")).partition("(")[0] for name in ("encoder", "head"))
    parts = {
        "label": "the class of a case",
        "multi_label": "several labels of a case",
        "survival": "the risk of an event",
        "regression": "a number for a case",
    }
    predicted = parts.get(str(contract.get("target")), "a property of a case")
    networks = head if taken.get("kind") == "features" else " and ".join(filter(None, (encoder, head)))
    source = "features of patches of whole-slide images" if taken.get("kind") == "features" else "whole-slide images"
    return f"{networks or 'A model'}: predicts {predicted} from {source}."


def model_facts(contract: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Yield the parts of the model."""
    words = contract.get("model") or {}
    for name in ("task", "encoder", "augment", "head"):
        if words.get(name):
            yield name, code(words[name])
    for name, number in (words.get("parameters") or {}).items():
        if number:
            yield f"parameters of the {name}", f"{number:,}"
    versions = contract.get("versions") or {}
    if versions:
        yield "versions", ", ".join(f"{name.replace('_', '-')} {version}" for name, version in versions.items())


def takes(taken: Mapping[str, Any]) -> str:
    """Return a sentence on the kind of input."""
    if taken.get("kind") == "features":
        return "One case: the features of the patches of one or several slides, as files of feature vectors."
    return "One case: one or several whole-slide images, or their patches in caches of e2e-abmilx."


def input_facts(taken: Mapping[str, Any], words: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Yield the properties of the input; ``words`` describe the model."""
    if taken.get("kind") == "features":
        yield "features per patch", taken["num_features"]
        yield "encoder of the features", code(taken["encoder"]) if taken.get("encoder") else "not recorded"
        if taken.get("mpp"):
            yield "µm per pixel of the patches", f"{taken['mpp']:g}"
        return
    scales = taken.get("mpp") or []
    evaluated = scales[:1] if taken.get("eval_scales") == "finest" else scales
    yield (
        "µm per pixel",
        " and ".join("not recorded" if mpp is None else f"{mpp:g}" for mpp in evaluated) or "not recorded",
    )
    if "patch_size" in taken:
        side = taken["patch_size"]
        sides = [f"{mpp * side:g} µm" for mpp in evaluated if mpp is not None]
        yield "side of a patch", f"{side} px" + (f" ({' and '.join(sides)})" if sides else "")
    if len(scales) > len(evaluated):
        yield "µm per pixel in training", " and ".join("not recorded" if mpp is None else f"{mpp:g}" for mpp in scales)
    for name, title in (("overlap", "overlap of neighbours"), ("min_tissue", "smallest fraction of tissue")):
        if taken.get(name) is not None:
            yield title, f"{taken[name]:g}"
    if words.get("input_size"):
        yield "resized to", f"{words['input_size']} px"
    for name in ("mean", "std"):
        if words.get(name):
            yield f"normalised by {name} (RGB, of 0 … 1)", ", ".join(f"{number:g}" for number in words[name])


def gives(contract: Mapping[str, Any]) -> str:
    """Return a sentence on the output."""
    edges, target = contract.get("time_edges") or [], contract.get("target")
    if target == "label":
        return "Per case: a probability for each class (they add up to 1), and the attention to each patch."
    if target == "multi_label":
        return "Per case: a probability for each label (each on its own), and the attention to each patch."
    if target == "survival" and len(edges):
        *first, last = (f"{edge:.4g}" for edge in edges)
        months = f"{', '.join(first)} and {last}" if first else last
        return (
            f"Per case: a risk (higher for earlier events), the probability of survival beyond {months}"
            f" {contract.get('time_unit', 'months')}, and the attention to each patch."
        )
    if target == "survival":
        return "Per case: a risk (higher for earlier events), and the attention to each patch."
    if target == "regression":
        return "Per case: the value, in the unit of the training labels, and the attention to each patch."
    return "Per case: a score, and the attention to each patch."


def from_logits(contract: Mapping[str, Any]) -> str:
    """Return a sentence on how the scores follow from the logits of an ONNX file; empty for tasks from elsewhere."""
    return {
        "ClassificationTask": "The probabilities are the softmax of the logits.",
        "MultiLabelTask": "The probabilities are the sigmoid of the logits.",
        "SurvivalTask": (
            "The probability of survival beyond the first k times above is the product of 1 - sigmoid(logit) over the"
            " first k logits; the risk is minus the sum of these products over all k."
        ),
        "CoxTask": "The logit is the risk.",
        "RegressionTask": "The value is value_mean + value_std × logit, with both numbers from the weights file.",
    }.get(str((contract.get("model") or {}).get("task")), "")


def threshold_rule(threshold: Mapping[str, Any] | None, contract: Mapping[str, Any]) -> str:
    """Return a sentence on the threshold; empty without one."""
    if not threshold:
        return ""
    classes = contract.get("classes") or [""]
    survival = contract.get("target") == "survival"
    score, meaning = ("a risk", "high risk") if survival else (f"a probability of {classes[-1]}", "positive")
    split = {"train": "training", "val": "validation"}.get(threshold["split"], threshold["split"])
    number = f"{threshold['cases']} " if threshold.get("cases") else ""
    rule = f" ({threshold['rule']})" if threshold.get("rule") else ""
    return (
        f"At or above the threshold {threshold['value']:.4g}, {score} counts as {meaning}. It was fitted on"
        f" {number}{split} cases{rule}."
    )


def training_facts(
    contract: Mapping[str, Any], record: Mapping[str, Any], settings: Mapping[str, Any]
) -> Iterator[tuple[str, object]]:
    """Yield what is known of the training; folders and files of the machine are left out."""
    seen, fit, best = (part or {} for part in (contract.get("seen"), record.get("fit"), record.get("best")))
    if seen.get("cases"):
        yield "training and validation cases", f"{seen['cases']:,}"
    data, model = init_args(settings, "data"), init_args(settings, "model")
    for name in ("fold", "patches_per_bag", "batch_size"):
        if data.get(name) is not None:
            yield name.replace("_", " "), data[name]
    for name in ("optimizer", "schedule", "loss"):
        if part := model.get(name):
            yield name, code(_class_in_words(part))
    if fit.get("epochs"):
        yield "epochs", fit["epochs"]
    if best.get("monitor"):
        value = "" if best.get("value") is None else f" = {best['value']:.4g}"
        yield "checkpoint chosen by", f"{best['monitor']}{value}, epoch {best.get('epoch')} (counted from 0)"
    for name, kept in (
        ("precision", contract.get("precision") or record.get("precision")),
        ("seed", record.get("seed")),
    ):
        if kept is not None:
            yield name, kept
    if fit.get("started"):
        yield "started", str(fit["started"])[:10]
    hardware = record.get("hardware") or {}
    if hardware:
        gpus = hardware.get("gpus") or []
        yield (
            "hardware",
            ", ".join(f"{gpus.count(gpu)} × {gpu}" for gpu in dict.fromkeys(gpus)) or hardware.get("cpu", ""),
        )


def init_args(settings: Mapping[str, Any], section: str) -> Mapping[str, Any]:
    """Return the arguments of a section of a config, such as ``data``; empty if it has none."""
    part = settings.get(section)
    arguments = part.get("init_args") if isinstance(part, Mapping) else None
    return arguments or {}


def _class_in_words(part: object) -> str:
    """Return a class of a config with its plain arguments, such as ``AdamW(lr=0.0001)``."""
    if not isinstance(part, Mapping):
        return str(part)
    arguments = (part.get("init_args") or {}).items()
    shown = [f"{name}={value}" for name, value in arguments if isinstance(value, int | float) and value is not False]
    return f"{str(part.get('class_path', '')).rpartition('.')[2]}({', '.join(shown)})"
