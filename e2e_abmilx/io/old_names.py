"""Names of release 0.1 before its rooms were laid out: what they are called now."""

import re
from collections.abc import Mapping
from typing import Any

#: Arguments of tasks.
TASK_ARGUMENTS = {"encoder_chunk": "train_chunk_size", "recompute": "gradient_checkpointing"}

#: Arguments of data modules.
DATA_ARGUMENTS = {
    "chunk_size": "eval_chunk_size",
    "coarse_share": "coarse_fraction",
    "short_bags": "padding",
    "val_share": "val_fraction",
    "workers": "num_workers",
}

#: Class paths, and modules, whose names end in a dot.
CLASS_PATHS = {
    "e2e_abmilx.augment.": "e2e_abmilx.encoders.augment.",
    "e2e_abmilx.callbacks.early_stopping.PatientStopping": "e2e_abmilx.training.callbacks.DeferredEarlyStopping",
    "e2e_abmilx.callbacks.PatientStopping": "e2e_abmilx.training.callbacks.DeferredEarlyStopping",
    "e2e_abmilx.callbacks.progress.": "e2e_abmilx.training.callbacks.progress_lines.",
    "e2e_abmilx.callbacks.": "e2e_abmilx.training.callbacks.",
    "e2e_abmilx.loggers.": "e2e_abmilx.training.loggers.",
    "e2e_abmilx.schedules.": "e2e_abmilx.tasks.schedules.",
    "PatientStopping": "DeferredEarlyStopping",
}

#: Metrics, without their split.
METRICS = {
    "accuracy_macro": "balanced_accuracy",
    "effective_patches": "effective_number_of_patches",
    "kappa_quadratic": "qwk",
    "share_holding_95": "fraction_holding_95",
}


def new_class_path(path: str) -> str:
    """Return a class path under its new name; any other path as it is."""
    for old, new in CLASS_PATHS.items():
        if path == old or (old.endswith(".") and path.startswith(old)):
            return new + path.removeprefix(old)
    return path


def new_metric(name: str) -> str:
    """Return the name of a metric, such as ``val/auc``, under its new name; any other name as it is."""
    split, slash, metric = name.rpartition("/")
    return f"{split}{slash}{METRICS.get(metric, metric)}"


def update_callback_states(states: Mapping[str, Any]) -> dict[str, Any]:
    """Return the states of callbacks, as a checkpoint holds them by class and monitored metric, under new names."""
    return {_update_state_key(key): state for key, state in states.items()}


def _update_state_key(key: str) -> str:
    """Rename the parts of a key such as ``PatientStopping{'monitor': 'val/accuracy_macro', 'mode': 'max'}``."""
    kind, brace, arguments = key.partition("{")
    return new_class_path(kind) + brace + re.sub(r"\w+/\w+", lambda found: new_metric(found[0]), arguments)


def update_hyperparameters(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a task, as an earlier checkpoint holds them, under their new names."""
    return {TASK_ARGUMENTS.get(name, name): _update_class_paths(value) for name, value in settings.items()}


def _update_class_paths(value: Any) -> Any:  # noqa: ANN401 - whatever a checkpoint holds
    if isinstance(value, Mapping):
        return {
            name: new_class_path(inner) if name == "class_path" else _update_class_paths(inner)
            for name, inner in value.items()
        }
    return value
