"""The command line: runs a command, and ends it with a message where it fails.

The overview needs nothing that is slow to import; what a command needs is imported when it runs.
"""

import logging
import os
import pkgutil
import sys
from typing import NoReturn

from e2e_abmilx import __version__
from e2e_abmilx.errors import InputError
from e2e_abmilx.io.near_misses import did_you_mean
from e2e_abmilx.main.commands import COMMANDS, CONFIGURED_PREDICT, overview
from e2e_abmilx.main.debug import debug, print_traceback_if_asked


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
        with debug():
            main([word for word in words if word != "--debug"])
        return
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    _answer_at_once(words)
    try:
        _run(words)
    except InputError as error:
        _exit(str(error))
    except OSError as error:
        if error.filename is None and error.strerror is None:
            raise
        _exit(f"{error.filename or 'disk'}: {error.strerror}")


def _answer_at_once(words: list[str]) -> None:
    """Print the overview or the version and exit, if that is asked for, and refuse a command that does not exist."""
    answer = {"--help": overview(), "-h": overview(), "--version": f"e2e-abmilx {__version__}"}
    first = words[0] if words else "--help"
    if first in answer:
        print(answer[first])
        sys.exit(0)
    # options before the command are LightningCLI's, such as a config with a section per command
    if first not in COMMANDS and not (first.startswith("-") and set(words) & set(COMMANDS)):
        meant = did_you_mean(first, COMMANDS) or ";"
        print(f"error: {first!r} is no command{meant} `e2e-abmilx --help` lists all commands", file=sys.stderr)
        sys.exit(2)


def _run(words: list[str]) -> None:
    name, *options = words
    command = COMMANDS.get(name, CONFIGURED_PREDICT)
    if name == "predict" and not _names_a_model(options):
        command = CONFIGURED_PREDICT
    command.ends(command.starts(name, pkgutil.resolve_name(command.target), options))


def _names_a_model(words: list[str]) -> bool:
    """Return whether ``predict`` is about a trained model; it may also have a config, as LightningCLI's has."""
    options = {word.split("=", 1)[0] for word in words}
    configured = any(option in ("--config", "-c", "--ckpt_path") or option.startswith("--data") for option in options)
    return "--model" in options and not configured


def _exit(reason: str) -> NoReturn:
    """Exit with a message, and in debug mode print the traceback of the current error above it."""
    print_traceback_if_asked()
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
