"""Comparison of models: one fit per config, head and seed, with the same splits and budget."""

import argparse
import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from e2e_abmilx.errors import InputError
from e2e_abmilx.runs.fits import Fit, fit_all, plan_fit, plan_fold_fits, resolve


def fit_models(words: Sequence[str]) -> tuple[Path, dict[str, list[Path]]]:
    """Fit and test every head with every config and seed.

    Runs go into ``<out>/<config>/<head>/seed-<seed>``. Where the config sets a fold, all folds are run, in subfolders
    ``fold-0``, ``fold-1``, …. The seed sets weights and draws; made folds depend on ``data.split_seed`` alone. See
    :func:`~e2e_abmilx.runs.fits.fit_all` for which fits are skipped and which are resumed.

    Args:
        words: ``--configs``, ``--heads``, ``--seeds``, ``--out`` and options of ``fit`` that all runs share.

    Returns:
        The folder of all runs, and the run folders of each model by its name.

    Raises:
        InputError: Settings are refused or differ from those of an earlier run, or a run failed.
    """
    options, words = _parser().parse_known_args(words)
    fits: dict[str, list[Fit]] = {}
    for name, settings in _models(options.configs, options.heads, words):
        if name in fits:
            raise InputError(f"{name} is named twice; name each model once")
        seeds = dict.fromkeys(options.seeds)
        fits[name] = [fit for seed in seeds for fit in _plan(settings, seed, options.out / name)]
    fit_all([fit for planned in fits.values() for fit in planned])
    return options.out, {name: [fit.folder for fit in planned] for name, planned in fits.items()}


def _models(configs: Sequence[str], heads: Sequence[str], words: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and settings of each config with each head, or with its own head where none is named."""
    for config in configs:
        for head in heads or [""]:
            settings = resolve(["--config", config, *([f"--model.head={head}"] if head else []), *words])
            used = settings["model"]["init_args"]["head"]["class_path"].rpartition(".")[2]
            yield f"{Path(config).stem}/{used}", settings


def _plan(settings: dict[str, Any], seed: int, folder: Path) -> list[Fit]:
    settings = copy.deepcopy(settings)
    data = settings["data"]["init_args"]
    settings["seed_everything"] = data["seed"] = seed
    folder = folder / f"seed-{seed}"
    return [plan_fit(settings, folder)] if data.get("fold") is None else plan_fold_fits(settings, folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="e2e-abmilx compare",
        description="Fit and test heads on one cohort with the same splits, seeds and budget, each run in a process of its"
        " own, and print them in one table.",
        epilog="All other options of `e2e-abmilx fit` apply to all runs. Where a config sets data.fold, all folds are run."
        " The same command resumes an interrupted comparison.",
        usage="%(prog)s [-h] --configs [CONFIG,...] [--heads [HEAD,...]] [--seeds [SEED,...]] [--out OUT] [options of fit]",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--configs", type=_list, required=True,
        help="configs of fits, such as one for training end to end and one for training on features",
    )  # fmt: skip
    parser.add_argument(
        "--heads", type=_list, default=[], help="names or class paths; by default the head of each config"
    )
    parser.add_argument(
        "--seeds", type=_list, default=[0],
        help="seeds of weights and draws (default: 0); data.split_seed is that of made folds",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=Path("runs/compare"), help="folder of all runs (default: %(default)s)"
    )
    return parser


def _list(text: str) -> list[Any]:
    """Parse one item, or several as ``[a,b]``, as the other commands do."""
    value = yaml.safe_load(text)
    return value if isinstance(value, list) else [value]
