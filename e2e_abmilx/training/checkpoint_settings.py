"""The model's settings that a checkpoint restores, against those that a user states."""

import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import Namespace

from e2e_abmilx.errors import InputError
from e2e_abmilx.io.old_names import update_hyperparameters
from e2e_abmilx.training.checkpoint_files import read_plain

_FIRST_WEIGHTS = ("weights", "pretrained")  # of an encoder; the checkpoint's weights replace them


class _Difference(NamedTuple):
    """A setting, its stated value and the one that is used instead."""

    name: str
    stated: Any
    used: Any


def read_model_settings(path: str | Path) -> dict[str, Any]:
    """Return class and arguments of the model in a checkpoint, as a config has them; empty if it holds none."""
    settings = update_hyperparameters(read_plain(path).get("hyper_parameters", {}))
    settings.pop("_instantiator", None)
    if "_class_path" in settings:
        return {"class_path": settings.pop("_class_path"), "dict_kwargs": settings}
    return settings


def keep_stated(stated: Namespace | None, used: Namespace, path: str | Path) -> None:
    """Keep the stated first weights of an encoder, and refuse other values that the checkpoint's settings replace.

    Args:
        stated: What the user states of the model, without defaults.
        used: The model's settings after those of the checkpoint have been restored; changed in place.
        path: The checkpoint.

    Raises:
        InputError: A stated value differs from the checkpoint's.
    """
    if stated is None:
        return
    for key in stated.keys():  # noqa: SIM118 - the dotted names of a namespace
        if _is_first_weights(key) and key in used:
            used[key] = stated[key]  # the file of the first training may be missing here
    if differences := list(_differences(stated, used, "model")):
        raise InputError(_refusal(differences, Path(path)))


def _refusal(differences: Sequence[_Difference], path: Path) -> str:
    config = path.parent / "fit.yaml"
    here = f" (--config {config} does)" if config.is_file() else ""
    lines = [f"{one.name} is {_write(one.stated)}, but {_write(one.used)} in the checkpoint" for one in differences]
    return (
        "\n  ".join([f"a model that starts from {path} has its settings, and others are stated:", *lines])
        + f"\nleave them out or state the checkpoint's{here}; to train with other settings, leave out --ckpt_path"
    )


def _is_first_weights(key: str) -> bool:
    return key.startswith("init_args.encoder.") and key.rpartition(".")[2] in _FIRST_WEIGHTS


def _differences(stated: Any, used: Any, name: str) -> Iterator[_Difference]:  # noqa: ANN401 - any setting
    """Find the stated values that are not used; the arguments of another class are not compared."""
    here, there = _parts(stated), _parts(used)
    if here is None or there is None or not _are_alike(stated, used):
        if stated != used:
            yield _Difference(name, stated, used)
        return
    for key, value in here.items():
        yield from _differences(value, there.get(key), f"{name}.{key}")


def _parts(value: Any) -> dict[str, Any] | None:  # noqa: ANN401
    """Return the arguments of a class, or the items of a list or mapping, by name; None for a plain value."""
    if isinstance(value, (list, tuple)):
        return {str(place): item for place, item in enumerate(value)}
    if not isinstance(value, (Namespace, Mapping)):
        return None
    parts = dict(vars(value) if isinstance(value, Namespace) else value)
    if "class_path" not in parts:
        return parts
    init, more = (_parts(parts.get(name)) or {} for name in ("init_args", "dict_kwargs"))
    return {**init, **more}


def _are_alike(stated: Any, used: Any) -> bool:  # noqa: ANN401
    """Return whether two values are of the same class, whose path may be spelled in two ways, or of the same length."""
    if isinstance(stated, (list, tuple)) or isinstance(used, (list, tuple)):
        return len(stated) == len(used)
    here, there = _class_path(stated), _class_path(used)
    if here is None or there is None:
        return here == there
    return here == there or pkgutil.resolve_name(here) is pkgutil.resolve_name(there)


def _class_path(value: Any) -> str | None:  # noqa: ANN401
    return value.get("class_path") if isinstance(value, (Namespace, Mapping)) else None


def _write(value: Any) -> str:  # noqa: ANN401
    """Return a value as a config has it; of a class, its name."""
    path = _class_path(value)
    if path is not None:
        return path.rpartition(".")[2]
    return "null" if value is None else str(value)
