"""The command line: LightningCLI's commands for tasks and data modules, and plain functions as commands."""

import logging
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import NoReturn

from jsonargparse import auto_cli

from e2e_abmilx.errors import InputError

logger = logging.getLogger(__name__)

_DPI = 300  # of figures, as journals require
_DEBUG = "JSONARGPARSE_DEBUG"  # environment variable

#: Commands that need neither model nor data: name → typed function with a docstring, imported when it is called.
TOOLS = {
    "cache": "e2e_abmilx.cache:cache_slides",
    "import_coords": "e2e_abmilx.cache.imports:import_coords",
    "import_images": "e2e_abmilx.cache.imports:import_images",
    "import_lmdb": "e2e_abmilx.cache.imports:import_lmdb",
    "report": "e2e_abmilx.reports:report",
    "verify": "e2e_abmilx.cache:verify",
}

#: Commands on trained models that need no config: as ``TOOLS``, and they return one sentence per slide that failed.
MODEL_TOOLS = {
    "evaluate": "e2e_abmilx.models.evaluate:evaluate",
    "export": "e2e_abmilx.models.export.command:export",
    "predict": "e2e_abmilx.models.predict:predict",
}

#: Commands with the options of a fit: name → function of the words, which returns a text.
MANY_FITS = {
    "compare": "e2e_abmilx.reports.command:compare",
    "crossval": "e2e_abmilx.reports.command:crossval",
    "plan": "e2e_abmilx.study.plan:plan",
}


def main(args: list[str] | None = None) -> None:
    """Run ``e2e-abmilx``.

    Errors that users can fix end it with a one-line message. With ``--debug``, anywhere among the options, the
    traceback is printed too.

    Args:
        args: Command and options; by default those of the process.
    """
    _set_up_log()
    words = sys.argv[1:] if args is None else args
    if "--debug" in words:
        with _debug():
            main([word for word in words if word != "--debug"])
        return
    try:
        if words and words[0] in TOOLS:
            _run_tool(words)
        elif _names_a_model(words):
            _run_model_tool(words)
        elif words and words[0] in MANY_FITS:
            print(pkgutil.resolve_name(MANY_FITS[words[0]])(words[1:]))
        else:
            _run_lightning(args)
    except InputError as error:
        _exit(str(error))
    except OSError as error:
        if error.filename is None and error.strerror is None:
            raise
        _exit(f"{error.filename or 'disk'}: {error.strerror}")


@contextmanager
def _debug() -> Iterator[None]:
    """Print tracebacks, also of options that jsonargparse refuses, and in processes that are started meanwhile."""
    before = os.environ.get(_DEBUG)
    os.environ[_DEBUG] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_DEBUG]
        else:
            os.environ[_DEBUG] = before


def _prints_tracebacks() -> bool:
    return os.environ.get(_DEBUG, "").lower() not in ("", "0", "false", "no")


def _exit(reason: str) -> NoReturn:
    """Exit with a message, and in debug mode print the traceback of the current error above it."""
    if _prints_tracebacks():
        traceback.print_exc()
    sys.exit(f"error: {reason}")


def _set_up_log() -> None:
    """Print the messages of the package on standard error."""
    log = logging.getLogger("e2e_abmilx")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        handler.addFilter(_is_printed)
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False  # a handler of the root logger would print them a second time


def _is_printed(record: logging.LogRecord) -> bool:
    """Return whether this process prints a message: only the first of several training processes prints INFO."""
    ranks = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    rank = next((rank for rank in ranks if rank), "0")
    return rank == "0" or record.levelno >= logging.WARNING


def _run_tool(words: list[str]) -> None:
    words = _complete_dry_run(words)
    tool = pkgutil.resolve_name(TOOLS[words[0]])
    result = auto_cli({words[0]: tool}, args=words, as_positional=False, prog="e2e-abmilx")
    if words[0] == "report":
        print(result)
        return
    if words[0] == "verify":
        print("\n".join(result) or "every patch of every store is intact")
        sys.exit(f"error: {len(result)} problems" if result else 0)
    failed = sum(row.status == "failed" for row in result)
    if failed:
        sys.exit(f"error: {failed} of {len(result)} slides failed; manifest.csv holds the reasons")


def _names_a_model(words: list[str]) -> bool:
    """Return whether a command is about a trained model; ``predict`` may also have a config, as LightningCLI's has."""
    if not words or words[0] not in MODEL_TOOLS:
        return False
    options = {word.split("=", 1)[0] for word in words[1:]}
    configured = any(option in ("--config", "-c", "--ckpt_path") or option.startswith("--data") for option in options)
    return words[0] != "predict" or ("--model" in options and not configured)


def _run_model_tool(words: list[str]) -> None:
    tool = pkgutil.resolve_name(MODEL_TOOLS[words[0]])
    failed = auto_cli({words[0]: tool}, args=words, as_positional=False, prog="e2e-abmilx")
    if failed:
        sys.exit("\n".join([f"error: {len(failed)} slides or cases failed:", *failed]))


def _complete_dry_run(words: list[str]) -> list[str]:
    """Replace ``--dry-run`` by ``--dry_run=true``, unless it has a value."""
    completed = []
    for word, following in zip_longest(words, words[1:], fillvalue="--"):
        name, *value = word.split("=", 1)
        if name not in ("--dry-run", "--dry_run"):
            completed.append(word)
        elif value or not following.startswith("-"):
            completed.append("=".join(["--dry_run", *value]))
        else:
            completed.append("--dry_run=true")
    return completed


def _run_lightning(args: list[str] | None) -> None:
    # Lightning takes seconds to import, and `cache --help` does not need it
    from e2e_abmilx.training.cli import run

    others = ", ".join(sorted({*TOOLS, *MODEL_TOOLS, *MANY_FITS} - {"predict"}))
    tested = run(
        args,
        epilog=f"Also: {others}; each has its own --help. predict --model best.ckpt needs no config: see predict --model x"
        " --help. fit --model.head ABMIL keeps the settings of the config's head that ABMIL has too, such as hidden_features;"
        " compare --heads does not. --debug shows tracebacks.",
    )
    if tested:
        _draw_figures(tested)


def _draw_figures(folder: Path) -> None:
    """Draw the figures of a test into ``figures``, one PNG each; an error is only logged, since the test is done."""
    from e2e_abmilx.reports import make_report  # matplotlib and pandas are slow to import too
    from e2e_abmilx.reports.figures import draw_figures
    from e2e_abmilx.runs.read import read_run

    try:
        drawings = draw_figures(make_report([read_run(folder)]))
        (folder / "figures").mkdir(exist_ok=True)
        for title, _, figure in drawings:
            name = re.sub(r"\W+", "_", title).lower()
            figure.savefig(folder / "figures" / f"{name}.png", dpi=_DPI)
    except Exception as error:  # noqa: BLE001 - no error in a figure may fail a finished test
        if _prints_tracebacks():
            traceback.print_exc()
        logger.warning("%s is tested, but its figures are not complete: %s", folder, error)
