"""The parser of the options of all commands: lists as people type them, and near misses of unknown options.

A list may be written as ``--mpp [0.5,1.0]``, ``--mpp 0.5 1.0`` or ``--mpp 0.5,1.0``. Words that follow an option are
joined by a mark until the parser that knows the option's type reads them, since an option of a nested class, such as
``--data.mpp``, is known only to the parser of that class. One value stands for a list of one, also in config files.
"""

import re
import sys
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any, NoReturn, Union, get_args, get_origin

import yaml
from jsonargparse import ArgumentParser, Namespace

from e2e_abmilx.io.near_misses import did_you_mean
from e2e_abmilx.io.urls import refuse_urls

_MARK = "␟"  # Unicode's picture of the separator of units, which nobody types
_EMPTY = ("", "null", "None")
_OPENERS = ("[", "(", "{", "'", '"')  # of values that are YAML already
_OPTION = re.compile(r"--?[A-Za-z_]")
_PLAIN = re.compile(r"[\w.+/~-]+|\[.*\]|\{.*\}|\".*\"|'.*'", re.DOTALL)  # needs no quotes in a YAML list
_SEVERAL = re.compile(r"--([\w.]+) (takes one value, but .*)")
_UNKNOWN = re.compile(r"Option '([\w.]+)' is not accepted( by \w+)?(?:; did you mean ([\w.]+)\?)?")


class OptionParser(ArgumentParser):
    """jsonargparse's parser, which also reads lists without brackets and names the near miss of an unknown option."""

    def __init__(self, *args: Any, **how: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **how)
        self._words: Sequence[str] = ()
        self._class_name = ""

    def add_class_arguments(self, theclass: type, nested_key: str | None = None, *args: Any, **how: Any) -> Any:  # noqa: ANN401
        """Add the arguments of a class, and keep its name for messages if the parser is for this class alone."""
        if nested_key is None:
            self._class_name = theclass.__name__
        return super().add_class_arguments(theclass, nested_key, *args, **how)

    def parse_args(self, args: Any = None, *more: Any, **how: Any) -> Any:  # noqa: ANN401
        """Parse options."""
        words = sys.argv[1:] if args is None else list(args)
        if self.exit_on_error:  # the parsers of nested classes do not exit
            self._words = words
        if self._subcommands_action is not None:
            # all words after the command go to the parser of the command
            return self._without_urls(super().parse_args(words, *more, **how))
        joined = _join(words)
        settings = super().parse_args(list(self._read_lists(joined)), *more, **how)
        if self.exit_on_error and _MARK in str(settings):
            unread = [word for word in joined if _MARK in word and word.partition("=")[2] in str(settings)]
            self._refuse_list(*unread[0].split("=", 1))
        return self._without_urls(settings)

    def parse_object(self, cfg_obj: Any, *more: Any, **how: Any) -> Any:  # noqa: ANN401
        """Parse the settings of a nested class, from the command line or a config file."""
        if not self.exit_on_error and isinstance(cfg_obj, Namespace):
            read = {name: self._read_value(name, value) for name, value in vars(cfg_obj).items()}
            cfg_obj = Namespace(read)  # type: ignore[no-untyped-call]
        return super().parse_object(cfg_obj, *more, **how)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the error, with the near miss of an unknown option, and exit."""
        explained = self._explain(message) if self.exit_on_error else self._add_near_miss(message)
        super().error(explained.replace(_MARK, " "), ex)

    def _without_urls(self, settings: Any) -> Any:  # noqa: ANN401 - jsonargparse's namespace
        """Return settings, unless a folder or a file among them is a URL; the parsers of nested classes check nothing."""
        if self.exit_on_error and isinstance(settings, Namespace):
            command = f"{settings.get('subcommand')}."
            refuse_urls(
                (name.removeprefix(command).replace(".init_args", ""), value) for name, value in settings.items()
            )
        return settings

    def _read_lists(self, words: Sequence[str]) -> Iterator[str]:
        """Write the value of each option that takes a list in the form that jsonargparse reads."""
        name = ""
        for word in words:
            if name and not _OPTION.match(word):
                yield self._read_list(name, word)
                name = ""
            elif _OPTION.match(word) and "=" in word:
                option, value = word.split("=", 1)
                yield f"{option}={self._read_list(option, value)}"
                name = ""
            else:
                yield word
                name = word

    def _read_list(self, name: str, text: str) -> str:
        action = self._option_string_actions.get(name)
        if action is None:
            return text
        kinds = _kinds(getattr(action, "_typehint", None))
        if _MARK in text:
            if list not in kinds:
                self._refuse_list(name, text)
            return _write_list(text.split(_MARK))
        if kinds == {list} and not name.endswith("+") and text not in _EMPTY and not text.startswith(_OPENERS):
            return _write_list(item.strip() for item in text.split(","))
        return text

    def _read_value(self, name: str, value: object) -> object:
        """Return the value of a nested option, which may have been read as YAML already."""
        if not isinstance(value, (str, int, float)) or isinstance(value, bool):
            return value
        read = self._read_list(f"--{name}", str(value))
        return value if read == str(value) else yaml.safe_load(read)

    def _refuse_list(self, name: str, text: str) -> NoReturn:
        values = text.split(_MARK)
        self.error(
            f"{name} takes one value, but {len(values)} are given: {', '.join(values)}; quote a value with spaces"
        )

    def _add_near_miss(self, message: str) -> str:
        """Add to the refusal of a nested class which of its options is meant."""
        unknown = _UNKNOWN.fullmatch(message)
        if not unknown:
            return message
        of_class = f" by {self._class_name}" if self._class_name else ""
        return f"{message}{of_class}{did_you_mean(unknown[1], (action.dest for action in self._actions))}"

    def _explain(self, message: str) -> str:
        """Return one sentence about an option that does not exist; other messages unchanged."""
        command = self.prog.split()[-1]
        if message.startswith("unrecognized arguments: "):
            words = message.removeprefix("unrecognized arguments: ").split()
            name = next((word.split("=")[0] for word in words if _OPTION.match(word)), None)
            if name is None:
                return message
            return f"{name} is no option of {command}{did_you_mean(name, self._option_string_actions)}"
        several = _SEVERAL.search(message)
        if several:
            return f"{self._typed(several[1])} {several[2]}"
        found = [match.groups() for match in _UNKNOWN.finditer(message)]
        if len({key for key, *_ in found}) != 1 or not _is_about_one_option(message):
            return message
        key, by_class, near = found[0]  # a list of a class and the class itself fail alike
        owner = by_class.removeprefix(" by ") if by_class else command
        name = self._typed(key)
        if near is None and not by_class:
            return f"{name} is no option of {owner}{did_you_mean(name, (action.dest for action in self._actions))}"
        meant = f"; did you mean {name.removesuffix(key)}{near}?" if near else ""
        return f"{name} is no option of {owner}{meant}"

    def _typed(self, key: str) -> str:
        """Return the option as it was typed; ``key`` itself if it comes from a config file."""
        typed = (word.split("=")[0] for word in self._words if word.startswith("--"))
        return next((word for word in typed if word.endswith(f".{key}") or word == f"--{key}"), key)


def _is_about_one_option(message: str) -> bool:
    """Return whether the alternatives that a message lists all fail for the unknown option, or are None."""
    alternatives = re.findall(r"^ *- (.*(?:\n(?! *- | *Given value).*)*)", message, re.MULTILINE)
    return all("NoneType" in one or "is not accepted" in one for one in alternatives)


def _join(words: Sequence[str]) -> list[str]:
    """Join the words after an option, if they are several: ``--mpp 0.5 1.0`` becomes ``--mpp=0.5␟1.0``."""
    joined: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        values = list(takewhile(lambda value: not _OPTION.match(value), rest)) if _OPTION.match(word) else []
        if len(values) < 2 or "=" in word:
            joined.append(word)
            continue
        del rest[: len(values)]
        bracketed = values[0].startswith(("[", "{")) and values[-1].endswith(("]", "}"))
        joined.append(f"{word}={(' ' if bracketed else _MARK).join(values)}")
    return joined


def _write_list(items: Iterable[str]) -> str:
    """Return a list as YAML, with quotes where an item needs them."""
    quoted = (item if _PLAIN.fullmatch(item) else "'" + item.replace("'", "''") + "'" for item in items)
    return f"[{','.join(quoted)}]"


def _kinds(typehint: Any) -> set[type]:  # noqa: ANN401 - any type hint
    """Return which values a type accepts: ``list``, for all sequences, and ``object``, for all others but None."""
    origin = get_origin(typehint) or typehint
    if typehint is None or typehint is type(None):
        return set()
    if origin in (Union, types.UnionType):
        return set().union(*map(_kinds, get_args(typehint)))
    is_list = isinstance(origin, type) and issubclass(origin, Iterable) and not issubclass(origin, (str, Mapping))
    return {list} if is_list and (get_args(typehint) or origin in (list, tuple, set)) else {object}
