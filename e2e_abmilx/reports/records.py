"""The record that a run keeps of itself in ``run.yaml``."""

import math
from pathlib import Path
from typing import Any

import yaml

from e2e_abmilx.errors import InputError

_SECTIONS = ("versions", "hardware", "parameters", "fit", "test", "best", "threshold")


def read_record(folder: Path) -> dict[str, Any]:
    """Return the content of ``run.yaml``; sections that the run did not record are empty, as all are in older runs.

    :class:`~e2e_abmilx.training.callbacks.run_record.RunRecord` describes the sections.

    Raises:
        InputError: If the file is damaged.
    """
    path = folder / "run.yaml"
    if not path.is_file():
        return {name: {} for name in _SECTIONS}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML ({error}); restore or remove it") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no record of a run; restore or remove it")
    return content | {name: content.get(name) or {} for name in _SECTIONS}


def fit_seconds(record: dict[str, Any]) -> float:
    """Return how long the fit took, with validation and without data preparation; NaN if unknown or not ended."""
    fit = record["fit"]
    return float(fit["seconds"]) if fit.get("ended") else math.nan
