"""Cross-validation: one fit a fold, each in a process of its own, gone on with after an interruption."""

import argparse
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
from typing import Any

import yaml

from e2e_abmilx.errors import InputError
from e2e_abmilx.locks import hold
from e2e_abmilx.reports import report
from e2e_abmilx.runs import is_finished, read_settings

logger = logging.getLogger(__name__)

#: Settings that differ between folds, or without changing what a run learns.
_FREE = ("data.fold", "data.workers", "trainer.default_root_dir", "trainer.enable_progress_bar", "ckpt_path")


def crossval(words: Sequence[str]) -> str:
    """Fit and test every fold, then report on all of them.

    Folds go into ``fold-0``, ``fold-1``, … of the config's ``trainer.default_root_dir``, with their common settings
    in ``crossval.yaml`` there. A finished fold is left alone and an interrupted one gone on with from its
    ``last.ckpt``; a failing one does not stop the others. Several processes may share the folder: each takes folds
    that no other has.

    Args:
        words: ``--config`` and other options of ``fit``, and ``--folds``.

    Returns:
        The report on all folds, as text.

    Raises:
        InputError: The settings cannot be cross-validated or are not those of an earlier fold, or a fold failed.
    """
    asked, words = _parser().parse_known_args(words)
    if any(word.split("=")[0] == "--ckpt_path" for word in words):
        raise InputError(
            "--ckpt_path is of one fold; crossval goes on from each fold's own last.ckpt, so leave it out"
        )
    if asked.folds is not None:
        words = [*words, f"--data.folds={asked.folds}"]
    settings = _resolve(words)
    root = Path(settings["trainer"]["default_root_dir"] or "runs/crossval")
    folders = [root / f"fold-{fold}" for fold in range(_count_folds(settings))]
    if asked.folds not in (None, len(folders)):
        raise InputError(
            f"--folds {asked.folds}: {settings['data']['init_args']['splits']} holds {len(folders)} folds,"
            " and all of them are fitted; leave --folds out"
        )
    for folder in folders:
        _refuse_other_settings(folder, settings)
        folder.mkdir(parents=True, exist_ok=True)
    config = _write(settings, root / "crossval.yaml")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what ends this process ends its fold's too
    _fit_all(folders, config)
    return report(folders, out=root)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="e2e-abmilx crossval",
        description="Fit and test every fold in a process of its own, and report on all of them.",
        epilog="Every option of `e2e-abmilx fit` does here what it does there; data.fold and the folders are set by fold."
        " The same command goes on with what an earlier one left undone.",
        usage="%(prog)s [-h] --config CONFIG [--folds FOLDS] [options of fit]",
        allow_abbrev=False,
    )
    parser.add_argument("--folds", type=int, help="number of folds to make, as data.folds")
    return parser


def _resolve(words: Sequence[str]) -> dict[str, Any]:
    """The settings of a fit with these options, which end the process where they are refused."""
    from e2e_abmilx.cli import run  # Lightning takes seconds to import, which `crossval --help` is spared

    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            run(["fit", *words, "--print_config"], epilog="")
    except SystemExit as end:
        if end.code:
            raise
    settings: dict[str, Any] = yaml.safe_load(printed.getvalue())
    return settings


def _write(settings: Mapping[str, Any], path: Path) -> Path:
    """Write the settings for all folds, which a config that is edited meanwhile then does not change."""
    partial = path.with_suffix(".partial")
    partial.write_text(yaml.safe_dump(dict(settings), sort_keys=False), encoding="utf-8")
    return partial.replace(path)


def _count_folds(settings: Mapping[str, Any]) -> int:
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


def _refuse_other_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuse to go on with a fold that was begun with other settings."""
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
            + "\nname another trainer.default_root_dir, or remove that folder"
        )


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names, as on the command line, and values."""
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, prefix if name == "init_args" else f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _fit_all(folders: Sequence[Path], config: Path) -> None:
    """Fit those folds that are not finished; at last wait for those that another process fits."""
    started, fitted = time.monotonic(), 0
    failed: dict[Path, str] = {}
    for wait in (False, True):
        for fold, folder in enumerate(folders):
            if folder in failed or is_finished(folder):
                continue
            if wait:
                logger.info("waiting for the process that fits %s", folder)
            with hold(folder / "fold.lock", wait=wait) as ours:
                if not ours or is_finished(folder):
                    continue
                left = sum(not is_finished(other) and other not in failed for other in folders)
                _show_progress(folders, fold, time.monotonic() - started, fitted, left)
                status = _fit(folder, fold, config)
                fitted += 1
                if not is_finished(folder):
                    failed[folder] = f"exit status {status}" if status else "it left no predictions.csv"
    if failed:
        raise InputError(
            f"{len(failed)} of {len(folders)} folds failed: "
            + ", ".join(f"{folder} ({reason})" for folder, reason in failed.items())
            + "; mend what is said above and give the same command again: it goes on with these and keeps the others"
        )


def _show_progress(folders: Sequence[Path], fold: int, elapsed_s: float, fitted: int, left: int) -> None:
    passed = timedelta(seconds=round(elapsed_s))
    coming = f", about {timedelta(seconds=round(elapsed_s / fitted * left))} to go" if fitted else ""
    verb = "going on with" if (folders[fold] / "last.ckpt").is_file() else "fitting"
    logger.info(
        "fold %d of %d: %s %s; %s elapsed%s", fold + 1, len(folders), verb, folders[fold], passed, coming
    )


def _fit(folder: Path, fold: int, config: Path) -> int:
    """Run a fold and return its exit status."""
    words = ["fit", "--config", config, "--data.fold", fold, "--trainer.default_root_dir", folder]
    last = folder / "last.ckpt"
    resume = ["--ckpt_path", last] if last.is_file() else []
    process = subprocess.Popen([sys.executable, "-m", "e2e_abmilx", *map(str, [*words, *resume])])
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise InputError(f"stopped in {folder}; the same command goes on from there") from None
