"""The table of all commands, and the overview that ``e2e-abmilx --help`` prints."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from e2e_abmilx.main.starting import (
    call,
    call_with_folder,
    call_with_places,
    draw_figures,
    pass_all,
    pass_words,
    print_text,
    refuse_failed_slides,
    refuse_failures,
    refuse_problems,
)

#: Groups of the overview in their order.
GROUPS = ("prepare", "train", "use a model", "look")


class Command(NamedTuple):
    """A command.

    Attributes:
        group: Its group in the overview, one of ``GROUPS``.
        line: What it does, for the overview.
        target: ``module:function``, imported when the command runs.
        starts: Gives it its options; is called with the name of the command, the target, and the other words.
        ends: Is called with the result.
    """

    group: Literal["prepare", "train", "use a model", "look"]
    line: str
    target: str
    starts: Callable[[str, Callable[..., object], list[str]], object] = call
    ends: Callable[[Any], None] = refuse_failures


_RUN = "e2e_abmilx.training.cli:run"

#: All commands by name, in the order of the overview within their groups.
COMMANDS = {
    "init": Command(
        "prepare", "write a study folder from a label table and slides", "e2e_abmilx.study.init:init_study",
        call_with_folder, print_text,
    ),
    "cache": Command(
        "prepare", "cut slides into patches, once", "e2e_abmilx.cache:cache_slides", ends=refuse_failed_slides
    ),
    "import_coords": Command(
        "prepare", "cut slides at the coordinates of TRIDENT or CLAM", "e2e_abmilx.cache.imports:import_coords",
        ends=refuse_failed_slides,
    ),
    "import_images": Command(
        "prepare", "make a cache of folders of patch images", "e2e_abmilx.cache.imports:import_images",
        ends=refuse_failed_slides,
    ),
    "import_lmdb": Command(
        "prepare", "make a cache of the LMDB databases of ABMILX's authors", "e2e_abmilx.cache.imports:import_lmdb",
        ends=refuse_failed_slides,
    ),
    "verify": Command("prepare", "check every patch of a cache", "e2e_abmilx.cache:verify", ends=refuse_problems),
    "push": Command(
        "prepare", "copy a cache into a bucket, for training from there", "e2e_abmilx.cache.push:push", call_with_places
    ),
    "plan": Command(
        "train", "show the time, memory and power of a fit, before it starts", "e2e_abmilx.study.plan:plan",
        pass_words, print_text,
    ),
    "fit": Command("train", "train a model, and test its best checkpoint", _RUN, pass_all, draw_figures),
    "crossval": Command(
        "train", "fit and test every fold", "e2e_abmilx.reports.command:crossval", pass_words, print_text
    ),
    "compare": Command(
        "train", "fit and test several models, in one table", "e2e_abmilx.reports.command:compare", pass_words,
        print_text,
    ),
    "validate": Command("train", "measure a checkpoint on the validation cases", _RUN, pass_all, draw_figures),
    "test": Command("train", "measure a checkpoint on the test cases", _RUN, pass_all, draw_figures),
    "predict": Command("use a model", "predict slides, and draw heatmaps", "e2e_abmilx.models.predict:predict"),
    "evaluate": Command("use a model", "validate a model on another cohort", "e2e_abmilx.models.evaluate:evaluate"),
    "export": Command(
        "use a model", "write a model into one folder: weights, model card, ONNX", "e2e_abmilx.models.export.command:export"
    ),
    "report": Command(
        "look", "report measures of tested runs, with intervals", "e2e_abmilx.reports:report", ends=print_text
    ),
    "view": Command("look", "show slides and attention of a tested run in the browser", "e2e_abmilx.viewer.command:view"),
    "completion": Command(
        "look", "print a script that completes commands and options: bash or zsh", "e2e_abmilx.main.completion:completion",
        pass_words, print_text,
    ),
}  # fmt: skip

#: ``predict`` with a config instead of ``--model``: all that LightningCLI can set, such as callbacks.
CONFIGURED_PREDICT = Command("use a model", COMMANDS["predict"].line, _RUN, pass_all, draw_figures)


def overview() -> str:
    """Return the help of the command line: all commands in their groups, each with a line."""
    width = max(map(len, COMMANDS))
    lines = [
        "usage: e2e-abmilx COMMAND [options]",
        "",
        "End-to-end training on whole-slide images, from slide-level labels.",
    ]
    for group in GROUPS:
        rows = [f"  {name:{width}}  {one.line}" for name, one in COMMANDS.items() if one.group == group]
        lines += ["", f"{group}:", *rows]
    return "\n".join([*lines, "", *_NOTES])


_NOTES = (
    "e2e-abmilx COMMAND --help  shows the options of a command",
    "e2e-abmilx --version       shows the version",
    "--debug, with any command, shows the traceback of an error.",
)
