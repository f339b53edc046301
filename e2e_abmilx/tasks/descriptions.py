"""Descriptions of a task in words and numbers, for the input contract of a model."""

import importlib.metadata
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn

from e2e_abmilx import __version__
from e2e_abmilx.data.contract import ContractError

_PACKAGES = ("torch", "torchvision", "timm", "lightning")
_PIXELS = {"input_size": "crop", "mean": "mean of the normalisation", "std": "std of the normalisation"}

_BFLOAT16 = 2**-8  # largest relative error of rounding to it


def describe_model(task: LightningModule) -> dict[str, Any]:
    """Return the classes and settings of a task's parts, their parameters, and what is done to pixels.

    ``input_size`` is the side of the patches that the encoder receives, px, or a list of both sides, or None where the
    crop does not state it;
    ``mean`` and ``std`` normalise pixels in [0, 1].
    """
    parts = {name: part for name in ("encoder", "augment", "head") if (part := getattr(task, name, None)) is not None}
    normalise = getattr(task, "normalize", None)
    return {
        "task": type(task).__name__,
        **{name: _in_words(part, task.hparams.get(name)) for name, part in parts.items()},
        "matmul_precision": torch.get_float32_matmul_precision(),
        "parameters": {name: sum(weights.numel() for weights in part.parameters()) for name, part in parts.items()},
        "input_size": _side(getattr(parts.get("augment"), "size", None)),
        "mean": [round(number / 255, 6) for number in getattr(normalise, "mean", nn.Buffer()).flatten().tolist()],
        "std": [round(number / 255, 6) for number in getattr(normalise, "std", nn.Buffer()).flatten().tolist()],
    }


def check_same_pixels(trained: Mapping[str, Any], present: Mapping[str, Any]) -> None:
    """Refuse a task that crops or normalises patches otherwise than the checkpoint's; both are descriptions.

    Raises:
        ContractError: They differ.
    """
    for name, words in _PIXELS.items():
        if name in trained and not _equal(trained[name], present[name]):
            raise ContractError(
                f"the checkpoint's {words} is {trained[name]}, and that of this task {present[name]}; build the task with"
                " the augment and encoder that it was trained with, or load it by load_from_checkpoint"
            )


def versions() -> dict[str, str]:
    """Return the versions of this package and of those that compute."""
    return {"e2e_abmilx": __version__, **{name: importlib.metadata.version(name) for name in _PACKAGES}}


def _equal(trained: object, present: object) -> bool:
    """Return whether two values are equal; fractions may be rounded, because bf16-true holds them in bfloat16."""
    if isinstance(trained, list) and isinstance(present, list) and len(trained) == len(present):
        return all(map(_equal, trained, present))
    if isinstance(trained, float) and isinstance(present, float):
        return math.isclose(trained, present, rel_tol=_BFLOAT16)
    return trained == present


def _side(size: object) -> int | list[int] | None:
    """Return the size of a crop as JSON has it; None if it is something else, as in modules from elsewhere."""
    if isinstance(size, (list, tuple)) and all(isinstance(side, int) for side in size):
        return list(size)
    return size if isinstance(size, int) else None


def _without_folders(setting: Any) -> Any:  # noqa: ANN401 - whatever a config holds
    """Return settings with the names of weights files only; folders of this machine do not concern others."""
    if not isinstance(setting, Mapping):
        return setting
    plain = {name: _without_folders(value) for name, value in setting.items()}
    if isinstance(plain.get("weights"), (str, Path)):
        plain["weights"] = Path(plain["weights"]).name
    return plain


def _in_words(part: nn.Module, setting: object) -> str:
    """Return the class of a part and its settings, such as ``RandomCrops(size=224, flips=True)``."""
    if isinstance(setting, Mapping) and "class_path" in setting:
        plain = _without_folders(setting.get("init_args") or {})
    else:
        kinds = (bool, int, float, str)
        public = {name: value for name, value in vars(part).items() if not name.startswith("_") and name != "training"}
        plain = {name: value for name, value in public.items() if isinstance(value, kinds)}
    return f"{type(part).__name__}({', '.join(f'{name}={value}' for name, value in plain.items())})"
