"""Several fits, each in a process of its own, which can be shared among processes and resumed."""

import contextlib
import io
import itertools
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from e2e_abmilx.errors import InputError
from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.io.locks import hold
from e2e_abmilx.io.progress import Pace
from e2e_abmilx.runs.read import is_finished, read_settings

logger = logging.getLogger(__name__)

#: Settings that may differ from those of an earlier run: they are set per fold, or do not change the result.
_FREE = ("data.fold", "data.num_workers", "trainer.default_root_dir", "trainer.enable_progress_bar", "ckpt_path")


class Fit(NamedTuple):
    """A planned fit.

    Attributes:
        folder: Folder of the run.
        config: File with the resolved settings.
        fold: Fold to test on; None for that of the settings.
    """

    folder: Path
    config: Path
    fold: int | None = None


def resolve(words: Sequence[str]) -> dict[str, Any]:
    """Return the settings of a fit with these options.

    Raises:
        InputError: A checkpoint is named, which belongs to one run only.
        SystemExit: Another option is refused; the parser has printed why.
    """
    # Lightning takes seconds to import, and `--help` does not need it
    from e2e_abmilx.training.cli import run

    if any(word.split("=")[0] == "--ckpt_path" for word in words):
        raise InputError(
            "--ckpt_path names the checkpoint of one run, but each run resumes from its own last.ckpt; leave it out"
        )
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            run(["fit", *words, "--print_config"])
    except SystemExit as end:
        if end.code:
            raise
    settings: dict[str, Any] = yaml.safe_load(printed.getvalue())
    return settings


def count_folds(settings: Mapping[str, Any]) -> int:
    """Return the number of folds that the settings make or read from files.

    Raises:
        InputError: The data module has no folds, or ``data.splits`` is not a folder with a file per fold.
    """
    data = settings["data"]["init_args"]
    if "fold" not in data:
        raise InputError(
            f"{settings['data']['class_path']} has no setting fold; use a data module that has one, such as"
            " SlideDataModule"
        )
    if data["splits"] is None:
        return int(data["folds"])
    files = [path.stem.rpartition("_")[2] for path in Path(data["splits"]).glob("*_*.csv")]
    count = next(number for number in itertools.count() if str(number) not in files)
    if not count:
        raise InputError(
            f"data.splits {data['splits']} is not a folder with one file of splits per fold (splits_0.csv, …); name"
            " such a folder, or leave it out and let folds be made"
        )
    return count


def plan_fold_fits(settings: Mapping[str, Any], root: Path) -> list[Fit]:
    """Plan one fit per fold, in ``root/fold-0``, ``root/fold-1``, …; write their settings to ``root/crossval.yaml``.

    Raises:
        InputError: The settings define no folds, or a folder holds a fit with other settings.
    """
    folders = [root / f"fold-{fold}" for fold in range(count_folds(settings))]
    config = _write(settings, folders, root / "crossval.yaml")
    return [Fit(folder, config, fold) for fold, folder in enumerate(folders)]


def plan_fit(settings: Mapping[str, Any], folder: Path) -> Fit:
    """Plan one fit; write its settings to ``folder/planned.yaml``.

    Raises:
        InputError: The folder holds a fit with other settings.
    """
    return Fit(folder, _write(settings, [folder], folder / "planned.yaml"))


def fit_all(fits: Sequence[Fit]) -> None:
    """Run the fits that are not finished.

    An interrupted fit is resumed from its ``last.ckpt``, and a failed one does not stop the others. Several processes
    may do this at the same time: each runs the fits that no other process runs, then waits for the rest.

    Raises:
        InputError: Fits failed, or the process was terminated.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that terminating this process ends its fit too
    pace, fitted = Pace(), 0
    failed: dict[Path, str] = {}
    for wait, (number, fit) in itertools.product((False, True), enumerate(fits, start=1)):
        if fit.folder in failed or is_finished(fit.folder):
            continue
        if wait:
            logger.info("waiting for the process that fits %s", fit.folder)
        with hold(fit.folder / "fit.lock", wait=wait) as ours:
            if not ours or is_finished(fit.folder):
                continue
            left = sum(not is_finished(other.folder) and other.folder not in failed for other in fits)
            times = pace.describe(fitted, left)
            doing = "resuming" if (fit.folder / "last.ckpt").is_file() else "fitting"
            logger.info("fit %d of %d: %s %s; %s", number, len(fits), doing, fit.folder, times)
            status = _run(fit)
            fitted += 1
            if not is_finished(fit.folder):
                failed[fit.folder] = f"exit status {status}" if status else "it left no predictions.csv"
    if failed:
        reasons = ", ".join(f"{folder} ({reason})" for folder, reason in failed.items())
        raise InputError(
            f"{len(failed)} of {len(fits)} fits failed: {reasons}; fix the errors above and give the same command again:"
            " it resumes these fits and keeps the others"
        )


def _write(settings: Mapping[str, Any], folders: Sequence[Path], path: Path) -> Path:
    """Write the settings of fits, so that editing the config meanwhile does not change them."""
    for folder in folders:
        _refuse_other_settings(folder, settings)
        folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_text(yaml.safe_dump(dict(settings), sort_keys=False), encoding="utf-8")
    return path


def _refuse_other_settings(folder: Path, settings: Mapping[str, Any]) -> None:
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
    """Yield dotted names, as on the command line, and values."""
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, prefix if name == "init_args" else f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _run(fit: Fit) -> int:
    words = ["--config", fit.config, "--trainer.default_root_dir", fit.folder]
    fold = [] if fit.fold is None else ["--data.fold", fit.fold]
    last = fit.folder / "last.ckpt"
    resume = ["--ckpt_path", last] if last.is_file() else []
    command = [sys.executable, "-m", "e2e_abmilx", "fit", *map(str, [*words, *fold, *resume])]
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise InputError(f"interrupted in {fit.folder}; the same command resumes it") from None
