"""All options of all commands, read from the parsers and signatures that accept them."""

import argparse
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, NoReturn

from docstrings import to_markdown
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser

from e2e_abmilx import datamodules, encoders, heads, losses, tasks
from e2e_abmilx.data import draws
from e2e_abmilx.encoders import augment
from e2e_abmilx.main.commands import COMMANDS
from e2e_abmilx.main.starting import pass_all, pass_words
from e2e_abmilx.runs import compare, crossval
from e2e_abmilx.tasks import schedules
from e2e_abmilx.training import callbacks
from e2e_abmilx.training.cli import BagCLI
from e2e_abmilx.training.parser import BagArgumentParser
from e2e_abmilx.training.short_help import OPTIONS_OF

#: Commands of LightningCLI: they have a config, a model, data and a trainer.
CONFIGURED = ("fit", "validate", "test", "predict")


class Option(NamedTuple):
    """An option: its name without dashes, its type, its default and its meaning, as text."""

    name: str
    type: str
    default: str
    meaning: str


def functions() -> dict[str, Callable[..., object]]:
    """Return the functions that are commands, by name; their parameters are the options."""
    return {name: pkgutil.resolve_name(target) for name, target in _targets().items()}


def _targets() -> dict[str, str]:
    return {name: one.target for name, one in COMMANDS.items() if one.starts not in (pass_all, pass_words)}


def commands() -> set[str]:
    """Return the names of all commands."""
    return set(COMMANDS)


def of_function(function: Callable[..., object]) -> list[Option]:
    """Return the options of a function that is a command."""
    parser = ArgumentParser()
    parser.add_function_arguments(function, as_positional=False, fail_untyped=False)
    return list(_options(parser))


def of_class(cls: type) -> list[Option]:
    """Return the settings of a class in a config, also those that it hands on to its base classes."""
    parser = LightningArgumentParser()
    parser.add_class_arguments(cls, None, fail_untyped=False, instantiate=False, skip=_skipped(cls))
    options = list(_options(parser))
    if not issubclass(cls, tasks.BagTask) or cls is tasks.BagTask:
        return options
    inherited = {option.name: option.meaning for option in of_class(tasks.BagTask)}
    return [one._replace(meaning=inherited[one.name]) if one.meaning.startswith("As in") else one for one in options]


def _skipped(cls: type) -> set[str]:
    """Return the arguments that the package gives: sizes of a head, and what an optimizer's schedule is for."""
    if issubclass(cls, heads.BagHead):
        return {"in_features", "num_outputs"}
    return {"optimizer", "total_steps"} if cls is schedules.WarmupCosine else set()


def of_many_fits() -> dict[str, list[Option]]:
    """Return the options that ``crossval`` and ``compare`` have besides those of ``fit``."""
    found = {
        name: list(_options(one.make_parser())) for name, one in {"crossval": crossval, "compare": compare}.items()
    }
    plans = {name: [Option(option, "", "", text) for option, text in own.items()] for name, own in OPTIONS_OF.items()}
    return found | plans


def of_configured() -> dict[str, list[Option]]:
    """Return the options of LightningCLI's commands, except those of the classes of model and data."""
    parsers = _ParserOnly.read()._subcommands_action._name_parser_map  # type: ignore[union-attr]
    return {name: list(_options(parsers[name])) for name in CONFIGURED}


class _Stop(Exception):
    """Carry the complete parser out of a BagCLI that would otherwise parse the options of the process."""


class _ParserOnly(BagCLI):
    def parse_arguments(self, parser: LightningArgumentParser, args: object) -> NoReturn:
        raise _Stop(parser)

    @classmethod
    def read(cls) -> LightningArgumentParser:
        try:
            cls(
                tasks.BagTask, LightningDataModule, subclass_mode_model=True, subclass_mode_data=True,
                auto_configure_optimizers=False, seed_everything_default=0, parser_class=BagArgumentParser,
            )  # fmt: skip
        except _Stop as stop:
            parser: LightningArgumentParser = stop.args[0]
            return parser
        raise AssertionError("BagCLI has not parsed its options")


def classes() -> dict[str, list[type]]:
    """Return the classes that a config can name, by the option that names them."""
    return {
        "model": _public(tasks, lambda one: issubclass(one, tasks.BagTask) and one is not tasks.BagTask),
        "data": _public(datamodules, lambda one: one is not datamodules.BagDataModule),
        "model.encoder": _public(encoders, lambda one: True),
        "model.head": _public(heads, lambda one: issubclass(one, heads.BagHead) and not inspect.isabstract(one)),
        "model.augment": [augment.RandomCrops, augment.GroupedCrops],
        "model.loss": _public(losses, lambda one: True),
        "model.schedule": [schedules.WarmupCosine],
        "data.draw": [draws.UniformDraw, draws.RunDraw, draws.RegionalDraw, draws.AttentionDraw],
        "trainer.callbacks": _public(callbacks, lambda one: one.__name__ not in _OF_EVERY_RUN),
    }


#: Callbacks that every run has; they are options of their own, such as ``--checkpoint.monitor``.
_OF_EVERY_RUN = {
    "AttentionMaps", "BestCheckpoint", "DataWait", "EmbeddingTable", "LastCheckpoint", "MemoryAdvice", "PredictionTable",
    "RunRecord", "SplitTable",
}  # fmt: skip


def _public(module: Any, chosen: Callable[[type], bool]) -> list[type]:  # noqa: ANN401
    found = [getattr(module, name) for name in sorted(module.__all__)]
    return [one for one in found if inspect.isclass(one) and chosen(one)]


def known_names() -> set[str]:
    """Return the names of all options of all commands, also those of classes, such as ``data.mpp``."""
    names = {option.name for function in functions().values() for option in of_function(function)}
    for options in [*of_configured().values(), *of_many_fits().values()]:
        names |= {option.name for option in options}
    for prefix, found in classes().items():
        names |= {f"{prefix}.{option.name}" for cls in found for option in of_class(cls)} | {prefix}
    return names | {"debug", "help", "version", "trainer.callbacks+"}


def _options(parser: argparse.ArgumentParser) -> Iterator[Option]:
    for action in parser._actions:
        name = next((word[2:] for word in action.option_strings if word.startswith("--")), None)
        if name in (None, "help") or name.endswith((".help", "+")) or action.help == argparse.SUPPRESS:  # type: ignore[union-attr]
            continue
        hint = getattr(action, "_typehint", None) or action.type or ""
        default = "required" if action.required else _show_default(action.default)
        meaning = " ".join((action.help or "").replace("%(default)s", str(action.default)).split())
        yield Option(str(name), _show_type(hint), default, to_markdown(meaning).strip())


def _show_type(hint: object) -> str:
    text = hint.__name__ if inspect.isclass(hint) and not hasattr(hint, "__args__") else str(hint)
    text = re.sub(r"[A-Za-z_][\w.]*\.(\w+)", r"\1", text)
    text = re.sub(r"Optional\[(.*)\]$", r"\1 | None", text.replace("NoneType", "None"))
    text = re.sub(r"Union\[([^\[\]]*)\]$", lambda union: union[1].replace(", ", " | "), text)
    return "" if text.startswith("<") else text.replace(" | ", " or ")  # a table ends its cells by |


def _show_default(value: object) -> str:
    if value is None or value is argparse.SUPPRESS:
        return ""
    if hasattr(value, "class_path"):
        return str(value.class_path).rpartition(".")[2]
    text = re.sub(r"\bTrue\b", "true", re.sub(r"\bFalse\b", "false", str(value)))
    return "" if len(text) > 60 or "<" in text else text


def table(options: Iterable[Option], *, prefix: str = "--") -> str:
    """Return options as a Markdown table."""
    rows = ["| option | type | default | meaning |", "| --- | --- | --- | --- |"]
    for option in options:
        cells = [_code(f"{prefix}{option.name}"), _code(option.type), _code(option.default), option.meaning]
        rows.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join(rows)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""
