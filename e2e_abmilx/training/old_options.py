"""Options under names of earlier releases: refused, with the names that they have now."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from e2e_abmilx.errors import InputError
from e2e_abmilx.io.old_names import DATA_ARGUMENTS, TASK_ARGUMENTS, new_class_path

_OPTIONS = {
    **{f"model.{old}": f"model.{new}" for old, new in TASK_ARGUMENTS.items()},
    **{f"data.{old}": f"data.{new}" for old, new in DATA_ARGUMENTS.items()},
}
_GROUPS = ("model", "data")  # which may be given as files of their own
_LEFT_OUT = ("init_args", "dict_kwargs", "fit", "validate", "test", "predict")  # of a dotted name


class Setting(NamedTuple):
    """An option that is stated.

    Attributes:
        name: Dotted name, without ``init_args`` and other parts that may be left out.
        value: As it is written.
        file: The config file that states it; None on the command line.
    """

    name: str
    value: Any
    file: str | None = None


def refuse_old_options(words: Sequence[str], message: str) -> None:
    """Explain a refusal whose reason is an option or a class path under an earlier name.

    Args:
        words: The command line.
        message: Why it is refused. Options that it does not mention as unknown may be those of a user's own class.

    Raises:
        InputError: There are such names on the command line or in its config files; the message has their new names.
    """
    found = dict(pair for setting in read_settings(words) for pair in _renamed(setting.name, setting.value))
    unknown = re.findall(r"'(\w+)' is not (?:accepted|expected)", message)
    if any(old not in _OPTIONS or old.rpartition(".")[2] in unknown for old in found):
        names = ", ".join(f"{old} is now {new}" for old, new in found.items())
        raise InputError(f"options have new names: {names}; rename them in the config or the command")


def _renamed(name: str, value: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - a value of a config
    if name in _OPTIONS:
        yield name, _OPTIONS[name]
    if isinstance(value, str) and new_class_path(value) != value:
        yield value, new_class_path(value)


def read_settings(words: Sequence[str]) -> Iterator[Setting]:
    """Yield all options that are stated on a command line and in its config files."""
    for number, word in enumerate(words):
        if not word.startswith("--"):
            continue
        name, equals, text = word.removeprefix("--").partition("=")
        value = text if equals else next(iter(words[number + 1 : number + 2]), "")
        if name == "config" or (name in _GROUPS and Path(value).is_file()):
            yield from _flatten(_read(Path(value)), "" if name == "config" else name, value)
        elif value.startswith(("{", "[")):
            yield from _flatten(_parse(value), name, None)
        else:
            yield Setting(_plain(name), value)


def _read(path: Path) -> Any:  # noqa: ANN401
    try:
        return _parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # the parser of options says what is wrong


def _parse(text: str) -> Any:  # noqa: ANN401
    try:
        return yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        return None


def _flatten(value: Any, name: str, file: str | None) -> Iterator[Setting]:  # noqa: ANN401
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(inner, f"{name}.{key}" if name else str(key), file)
    elif isinstance(value, list):
        for inner in value:
            yield from _flatten(inner, name, file)
    else:
        yield Setting(_plain(name), value, file)


def _plain(name: str) -> str:
    """A dotted name without the parts that may be left out."""
    return ".".join(part for part in name.rstrip("+").split(".") if part not in _LEFT_OUT)
