"""How a command gets its options, and what is done with its result."""

import inspect
import itertools
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from e2e_abmilx.main.debug import print_traceback_if_asked

logger = logging.getLogger(__name__)

_DPI = 300  # of figures, as journals require


# Starts ---------------------------------------------------------------------------------------------------------


def call(name: str, target: Callable[..., object], words: list[str]) -> object:
    """Call a typed function with options that are parsed by its signature and docstring."""
    from jsonargparse import auto_cli  # takes a second to import, and the overview does not need it

    from e2e_abmilx.io.option_parser import OptionParser

    words = [name, *_complete_dry_run(words)]
    return auto_cli({name: target}, args=words, as_positional=False, parser_class=OptionParser, prog="e2e-abmilx")


def call_with_folder(name: str, target: Callable[..., object], words: list[str]) -> object:
    """As :func:`call`; a first word that is no option is the first parameter, such as ``my_study`` of ``init my_study``."""
    first = next(iter(inspect.signature(target).parameters))
    positional = bool(words) and not words[0].startswith("-")
    return call(name, target, [f"--{first}", *words] if positional else words)


def call_with_places(name: str, target: Callable[..., object], words: list[str]) -> object:
    """As :func:`call`; leading words that are no options are the first two parameters, as of ``push CACHE s3://bucket``."""
    parameters = list(inspect.signature(target).parameters)[:2]
    leading = list(itertools.takewhile(lambda word: not word.startswith("-"), words))[: len(parameters)]
    options = [part for pair in zip(parameters, leading, strict=False) for part in (f"--{pair[0]}", pair[1])]
    return call(name, target, [*options, *words[len(leading) :]])


def pass_words(name: str, target: Callable[..., object], words: list[str]) -> object:
    """Call a function that parses the words itself."""
    return target(words)


def pass_all(name: str, target: Callable[..., object], words: list[str]) -> object:
    """Call a function that stands for several commands, with the name of the command as the first word."""
    return target([name, *words])


def _complete_dry_run(words: list[str]) -> list[str]:
    """Replace ``--dry-run`` by ``--dry_run=true``, unless it has a value."""
    completed = []
    for word, following in itertools.zip_longest(words, words[1:], fillvalue="--"):
        name, *value = word.split("=", 1)
        if name not in ("--dry-run", "--dry_run"):
            completed.append(word)
        elif value or not following.startswith("-"):
            completed.append("=".join(["--dry_run", *value]))
        else:
            completed.append("--dry_run=true")
    return completed


# Ends -----------------------------------------------------------------------------------------------------------


def print_text(text: str) -> None:
    """Print a text; a reader that has seen enough of it, such as ``head``, is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains again when it ends


def refuse_failed_slides(rows: Sequence[Any]) -> None:
    """Exit with the number of slides that failed, if any."""
    failed = sum(row.status == "failed" for row in rows)
    if failed:
        sys.exit(f"error: {failed} of {len(rows)} slides failed; manifest.csv holds the reasons")


def refuse_problems(problems: Sequence[str]) -> None:
    """Print the problems of a cache and exit with their number, if any."""
    print("\n".join(problems) or "every patch of every store is intact")
    sys.exit(f"error: {len(problems)} problems" if problems else 0)


def refuse_failures(failed: Sequence[str] | None) -> None:
    """Exit with one sentence per slide or case that failed, if any."""
    if failed:
        sys.exit("\n".join([f"error: {len(failed)} slides or cases failed:", *failed]))


def draw_figures(folder: Path | None) -> None:
    """Draw the figures of a test into ``figures``, one PNG each; an error is only logged, since the test is done."""
    if folder is None:
        return
    # matplotlib and pandas are slow to import too
    from e2e_abmilx.reports import make_report
    from e2e_abmilx.reports.figures import draw_figures as draw
    from e2e_abmilx.runs.read import read_run

    try:
        drawings = draw(make_report([read_run(folder)]))
        (folder / "figures").mkdir(exist_ok=True)
        for title, _, figure in drawings:
            name = re.sub(r"\W+", "_", title).lower()
            figure.savefig(folder / "figures" / f"{name}.png", dpi=_DPI)
    except Exception as error:  # noqa: BLE001 - no error in a figure may fail a finished test
        print_traceback_if_asked()
        logger.warning("%s is tested, but its figures are not complete: %s", folder, error)
