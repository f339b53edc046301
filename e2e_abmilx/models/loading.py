"""Trained models, loaded from checkpoints, runs, cross-validations and exported folders."""

import glob
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from jsonargparse import ArgumentError
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

import e2e_abmilx.encoders
import e2e_abmilx.heads
import e2e_abmilx.tasks.schedules  # noqa: F401 - once imported, settings can name a class without its module
from e2e_abmilx.errors import InputError
from e2e_abmilx.io.urls import refuse_url
from e2e_abmilx.models.folder import is_model, read_model
from e2e_abmilx.models.model import Model
from e2e_abmilx.tasks import BagTask
from e2e_abmilx.training.checkpoint_files import find_checkpoint, read_plain

_PARTS = (nn.Module, Optimizer, LRScheduler)
_NAMES = ("encoder", "augment", "head", "loss", "optimizer", "schedule")  # of settings that may be a text


def load_model(source: str | Path | Sequence[str | Path], *, device: str | None = None) -> Model:
    """Load a trained model, or several as an ensemble.

    Args:
        source: A checkpoint; the folder of a run, whose ``best.ckpt`` is meant; the folder of a cross-validation, whose
            folds are an ensemble; an exported folder; one on the Hugging Face hub, ``hf://ORG/NAME``; a pattern such as
            ``runs/*/best.ckpt``; or a list of these. Load models only from people whom you trust.
        device: Where to compute; by default a CUDA device if there is one.

    Raises:
        InputError: There is no model, or it cannot be rebuilt from its settings.
        ContractError: The models have different targets, classes or inputs.

    Example:
        >>> model = load_model("runs/brca/best.ckpt")  # doctest: +SKIP
        >>> model.predict("slide.svs").probabilities  # doctest: +SKIP
        {'IDC': 0.93, 'ILC': 0.07}
    """
    return Model([_load_task(path) for path in find_models(source)], device=device)


def find_models(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return the checkpoints and exported folders that a source names.

    Raises:
        InputError: There is none, or one is named twice.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    paths = [path for one in sources for path in _expand(str(one))]
    if not paths:
        raise InputError("no model is given; name a checkpoint, a run or an exported folder")
    resolved = [path.resolve() for path in paths]
    twice = [path for path in resolved if resolved.count(path) > 1]
    if twice:
        raise InputError(f"{min(twice)} is named twice; name each model once")
    return paths


def _expand(source: str) -> Iterator[Path]:
    if source.startswith("hf://"):
        from e2e_abmilx.models.export.hub import fetch_folder  # the hub's client is slow to import

        source = str(fetch_folder(source))
    refuse_url("model", source)
    path = Path(source)
    folds = sorted(path.glob("fold-*/best.ckpt"), key=lambda file: (len(file.parent.name), file.parent.name))
    if path.is_dir() and (is_model(path) or not folds):
        if not is_model(path) and not (path / "best.ckpt").is_file():
            raise InputError(f"{path} holds no model: neither best.ckpt, nor fold-*/best.ckpt, nor contract.json")
        yield path if is_model(path) else path / "best.ckpt"
    elif path.is_dir():
        yield from folds
    elif not path.exists() and (found := sorted(glob.glob(source))):
        for match in found:
            yield from _expand(match)
    else:
        yield Path(find_checkpoint(source, path.parent) or path)  # it explains what is wrong with another file


def _load_task(path: Path) -> BagTask:
    saved = read_model(path) if path.is_dir() else _read_checkpoint(path)
    settings = saved.get("hyper_parameters", {})
    if "_class_path" not in settings:
        raise InputError(
            f"{path} does not name the classes of its model, because the model was built in Python; build it again with"
            " YourTask.load_from_checkpoint(path, encoder=…, head=…) and use Model(task)"
        )
    _check_parts(settings, path)
    try:
        return _find_class(settings["_class_path"]).rebuild(saved)
    except (ValueError, TypeError, RuntimeError, ArgumentError) as error:
        raise InputError(f"{path}: its model cannot be built: {error}") from error


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint of a fit."""
    try:
        saved = read_plain(path)
    except (RuntimeError, UnpicklingError, EOFError) as error:
        reason = str(error).strip().rpartition("\n\n")[0] or str(error)
        raise InputError(
            f"{path} is damaged, or no checkpoint of this package; name a .ckpt of a fit: {reason}"
        ) from error
    if not isinstance(saved, dict) or "state_dict" not in saved:
        raise InputError(f"{path} holds no state_dict, so it is no checkpoint; name a .ckpt of a fit")
    return saved


def _check_parts(settings: object, path: Path) -> None:
    """Refuse settings that call anything but classes of networks, optimizers and schedules.

    A config may name any function or another file, and so could the settings of a downloaded model.

    Raises:
        InputError: They do.
    """
    for name in _called(settings):
        try:
            part = pkgutil.resolve_name(name) if "." in name else None
        except (ImportError, AttributeError, ValueError) as error:
            raise InputError(f"{path}: its model cannot be built: there is no {name} ({error})") from error
        if not (isinstance(part, type) and issubclass(part, _PARTS)):
            raise InputError(
                f"{path}: its settings call {name}, which is no class of a network, optimizer or schedule; if you trust it,"
                " build the task by YourTask.load_from_checkpoint(path) and use Model(task)"
            )


def _called(settings: object) -> Iterator[str]:
    """Yield the paths of what settings call, at any depth; a class without its module is found among parts only."""
    if isinstance(settings, Mapping):
        texts = [(name, value) for name, value in settings.items() if isinstance(value, str)]
        yield from (value for name, value in texts if name in _NAMES or (name == "class_path" and "." in value))
    if isinstance(settings, Mapping | list | tuple):
        for inner in settings.values() if isinstance(settings, Mapping) else settings:
            yield from _called(inner)


def _find_class(path: str) -> type[BagTask]:
    """Return the class of a task; one from outside this package is imported, as parts of the model are.

    Raises:
        InputError: There is none of this name, or it is no task.
    """
    if path.startswith("e2e_abmilx."):
        try:
            ours = pkgutil.resolve_name(path)
        except (ImportError, AttributeError) as error:
            raise InputError(f"there is no class {path} of this model; update e2e-abmilx") from error
        if not (isinstance(ours, type) and issubclass(ours, BagTask)):
            raise InputError(f"{path} of this model is no task; export or train it again")
        return ours
    waiting = list[type[BagTask]](BagTask.__subclasses__())
    while waiting:
        known = waiting.pop()
        if path == f"{known.__module__}.{known.__qualname__}":
            return known
        waiting += known.__subclasses__()
    try:
        theirs = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"the class {path} of this model is not found ({error}); install its package, add its folder to PYTHONPATH, or"
            " import its module before you load the model"
        ) from error
    if not (isinstance(theirs, type) and issubclass(theirs, BagTask)):
        raise InputError(f"{path} of this model is no task; export or train it again")
    return theirs
