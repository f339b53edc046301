"""Many fits, each in a process of its own: shared among processes, gone on with after an interruption."""

import contextlib
import io
import itertools
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.errors import InputError
from e2e_abmilx.io.locks import hold
from e2e_abmilx.runs.read import is_finished, read_settings

logger = logging.getLogger(__name__)

#: Settings that differ between folds, or without changing what a run learns.
_FREE = ("data.fold", "data.num_workers", "trainer.default_root_dir", "trainer.enable_progress_bar", "ckpt_path")


class Fit(NamedTuple):
    """A run to be made.

    Attributes:
        folder: Where its files go.
        config: The settings, resolved.
        fold: Which fold to test on; None for that of the settings.
    """

    folder: Path
    config: Path
    fold: int | None = None


def resolve(words: Sequence[str]) -> dict[str, Any]:
    """Return the settings of a fit with these options.

    Raises:
        InputError: A checkpoint is named, which is of one run.
        SystemExit: Another option is refused, which the command line has said.
    """
    from e2e_abmilx.training.cli import run  # Lightning takes seconds to import, which `--help` is spared

    if any(word.split("=")[0] == "--ckpt_path" for word in words):
        raise InputError(
            "--ckpt_path is of one run, and each of several goes on from its own last.ckpt; leave it out"
        )
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            run(["fit", *words, "--print_config"], epilog="")
    except SystemExit as end:
        if end.code:
            raise
    settings: dict[str, Any] = yaml.safe_load(printed.getvalue())
    return settings


def count_folds(settings: Mapping[str, Any]) -> int:
    """Return how many folds the settings make, or name files of.

    Raises:
        InputError: They know no folds, or name a folder without files of them.
    """
    data = settings["data"]["init_args"]
    if "fold" not in data:
        raise InputError(
            f"{settings['data']['class_path']} has no setting fold; take a data module that has, such as"
            " SlideDataModule"
        )
    if data["splits"] is None:
        return int(data["folds"])
    files = [path.stem.rpartition("_")[2] for path in Path(data["splits"]).glob("*_*.csv")]
    count = next(number for number in itertools.count() if str(number) not in files)
    if not count:
        raise InputError(
            f"data.splits {data['splits']} is no folder with a file of splits a fold (splits_0.csv, …); name"
            " one, or leave it out and let folds be made"
        )
    return count


def plan_fold_fits(settings: Mapping[str, Any], root: Path) -> list[Fit]:
    """Plan a fit a fold, into ``root/fold-0``, ``root/fold-1``, …; their settings go into ``root/crossval.yaml``.

    Raises:
        InputError: The settings know no folds, or a folder holds a fit with others.
    """
    folders = [root / f"fold-{fold}" for fold in range(count_folds(settings))]
    config = _write(settings, folders, root / "crossval.yaml")
    return [Fit(folder, config, fold) for fold, folder in enumerate(folders)]


def plan_fit(settings: Mapping[str, Any], folder: Path) -> Fit:
    """Plan one fit; its settings go into ``folder/planned.yaml``.

    Raises:
        InputError: The folder holds a fit with other settings.
    """
    return Fit(folder, _write(settings, [folder], folder / "planned.yaml"))


def fit_all(fits: Sequence[Fit]) -> None:
    """Make those runs that are not finished; at last wait for those that another process makes.

    An interrupted run is gone on with from its ``last.ckpt``, and a failing one does not stop the others. Several
    processes may do this at the same time: each takes runs that no other has.

    Raises:
        InputError: Runs failed, or the process was told to stop.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what ends this process ends its fit's too
    started, fitted = time.monotonic(), 0
    failed: dict[Path, str] = {}
    for wait in (False, True):
        for number, fit in enumerate(fits, start=1):
            if fit.folder in failed or is_finished(fit.folder):
                continue
            if wait:
                logger.info("waiting for the process that fits %s", fit.folder)
            with hold(fit.folder / "fit.lock", wait=wait) as ours:
                if not ours or is_finished(fit.folder):
                    continue
                left = sum(not is_finished(other.folder) and other.folder not in failed for other in fits)
                where = f"fit {number} of {len(fits)}"
                _show_progress(where, fit.folder, time.monotonic() - started, fitted, left)
                status = _fit(fit)
                fitted += 1
                if not is_finished(fit.folder):
                    failed[fit.folder] = f"exit status {status}" if status else "it left no predictions.csv"
    if failed:
        raise InputError(
            f"{len(failed)} of {len(fits)} fits failed: "
            + ", ".join(f"{folder} ({reason})" for folder, reason in failed.items())
            + "; mend what is said above and give the same command again: it goes on with these and keeps the others"
        )


def _write(settings: Mapping[str, Any], folders: Sequence[Path], path: Path) -> Path:
    """Write the settings of fits, which a config that is edited meanwhile then does not change."""
    for folder in folders:
        _refuse_other_settings(folder, settings)
        folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_text(yaml.safe_dump(dict(settings), sort_keys=False), encoding="utf-8")
    return path


def _refuse_other_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuse to go on with a run that was begun with other settings."""
    if not is_finished(folder) and not (folder / "last.ckpt").is_file():
        return
    then, now = dict(_flatten(read_settings(folder))), dict(_flatten(settings))
    differences = [
        f"{name}: {then.get(name, 'absent')} there, {now.get(name, 'absent')} now"
        for name in sorted(then.keys() | now.keys())
        if name not in _FREE and then.get(name) != now.get(name)
    ]
    if differences:
        raise InputError(
            "\n  ".join([f"{folder} was fitted with other settings:", *differences])
            + "\nname another folder for the runs, or remove that one"
        )


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names, as on the command line, and values."""
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, prefix if name == "init_args" else f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _show_progress(where: str, folder: Path, elapsed_s: float, fitted: int, left: int) -> None:
    passed = timedelta(seconds=round(elapsed_s))
    coming = f", about {timedelta(seconds=round(elapsed_s / fitted * left))} to go" if fitted else ""
    verb = "going on with" if (folder / "last.ckpt").is_file() else "fitting"
    logger.info("%s: %s %s; %s elapsed%s", where, verb, folder, passed, coming)


def _fit(fit: Fit) -> int:
    """Make a run and return its exit status."""
    words = ["--config", fit.config, "--trainer.default_root_dir", fit.folder]
    fold = [] if fit.fold is None else ["--data.fold", fit.fold]
    last = fit.folder / "last.ckpt"
    resume = ["--ckpt_path", last] if last.is_file() else []
    process = subprocess.Popen(
        [sys.executable, "-m", "e2e_abmilx", "fit", *map(str, [*words, *fold, *resume])]
    )
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise InputError(f"stopped in {fit.folder}; the same command goes on from there") from None
