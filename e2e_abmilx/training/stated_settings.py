"""The settings that a user states: the options of a command line and the lines of its config files, before any parsing."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

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
    """Return a dotted name without the parts that may be left out."""
    return ".".join(part for part in name.rstrip("+").split(".") if part not in _LEFT_OUT)
