"""Options under names of earlier releases: refused, with the names that they have now."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from e2e_abmilx.errors import InputError
from e2e_abmilx.io.old_names import DATA_ARGUMENTS, TASK_ARGUMENTS, new_class_path
from e2e_abmilx.training.stated_settings import read_settings

_OPTIONS = {
    **{f"model.{old}": f"model.{new}" for old, new in TASK_ARGUMENTS.items()},
    **{f"data.{old}": f"data.{new}" for old, new in DATA_ARGUMENTS.items()},
}


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
