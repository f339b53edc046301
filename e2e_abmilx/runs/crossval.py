"""Cross-validation: one fit per fold."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from e2e_abmilx.errors import InputError
from e2e_abmilx.io.near_misses import refuse_near_misses
from e2e_abmilx.io.urls import refuse_url
from e2e_abmilx.runs.fits import count_folds, fit_all, plan_fold_fits, resolve


def fit_folds(words: Sequence[str]) -> tuple[Path, list[Path]]:
    """Fit and test every fold.

    Folds go into ``fold-0``, ``fold-1``, … of the config's ``trainer.default_root_dir``, with their common settings
    in ``crossval.yaml``. See :func:`~e2e_abmilx.runs.fits.fit_all` for which fits are skipped and which are resumed.

    Args:
        words: ``--config`` and other options of ``fit``, and ``--folds``.

    Returns:
        The folder of the cross-validation, and the folder of each fold.

    Raises:
        InputError: The settings define no folds or differ from those of an earlier fold, or a fold failed.
    """
    parser = make_parser()
    options, words = parser.parse_known_args(words)
    refuse_near_misses(parser, words)
    if options.folds is not None:
        words = [*words, f"--data.folds={options.folds}"]
    settings = resolve(words)
    refuse_url("trainer.default_root_dir", settings["trainer"]["default_root_dir"])
    root = Path(settings["trainer"]["default_root_dir"] or "runs/crossval")
    if options.folds not in (None, count_folds(settings)):
        raise InputError(
            f"--folds is {options.folds}, but {settings['data']['init_args']['splits']} holds {count_folds(settings)}"
            " folds, and all of them are fitted; leave --folds out"
        )
    fits = plan_fold_fits(settings, root)
    fit_all(fits)
    return root, [fit.folder for fit in fits]


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options of a cross-validation that are not those of a fit."""
    parser = argparse.ArgumentParser(
        prog="e2e-abmilx crossval",
        description="Fit and test every fold in a process of its own, and report on all of them.",
        epilog="All other options of `e2e-abmilx fit` apply to every fold; data.fold and the folders are set per fold."
        " The same command resumes an interrupted cross-validation.",
        usage="%(prog)s [-h] --config CONFIG [--folds FOLDS] [options of fit]",
        allow_abbrev=False,
    )
    parser.add_argument("--folds", type=int, help="number of folds to make; sets data.folds")
    return parser
