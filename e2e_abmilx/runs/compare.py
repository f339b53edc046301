"""Comparison of models: one fit per config, head or variant, and seed, with the same splits and budget."""

import argparse
import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from e2e_abmilx.errors import InputError
from e2e_abmilx.io.near_misses import refuse_near_misses
from e2e_abmilx.io.urls import refuse_url
from e2e_abmilx.runs.fits import Fit, fit_all, plan_fit, plan_fold_fits, resolve
from e2e_abmilx.runs.variants import Variant, read_variants, refuse_conflicts

#: A head without arguments: replacing it by another leaves the other with its own defaults.
_BARE_HEAD = "--model.head=MeanPool"
_SEEDS = ("--seed_everything", "--data.seed", "--data.init_args.seed")


class _Model(NamedTuple):
    """A row of the comparison: its name, the folder of its runs below ``--out``, and the settings of its fits."""

    name: str
    folder: str
    settings: dict[str, Any]


def fit_models(options: argparse.Namespace, shared: Sequence[str]) -> dict[str, list[Path]]:
    """Fit and test every head, or every variant, with every config and seed.

    Runs go into ``<out>/<config>/<head>/seed-<seed>``, with the name of the variant instead of the head if there are
    variants. Where the config sets a fold, all folds are run, in subfolders ``fold-0``, ``fold-1``, …. The seed sets
    weights and draws; made folds depend on ``data.split_seed`` alone. See :func:`~e2e_abmilx.runs.fits.fit_all` for which
    fits are skipped and which are resumed.

    What is compared: a head of the class that the config names has the config's settings; a head of another class has
    its own defaults, even for settings that both classes have, such as ``hidden_features``. ``fit --model.head ABMIL``,
    in contrast, keeps the config's values of the settings that both have. Options of a variant, and those that all runs
    share, apply on top.

    Args:
        options: The options of the comparison itself, as :func:`read_options` returns them.
        shared: Options of ``fit`` that all runs share.

    Returns:
        The run folders of each model by its name.

    Raises:
        InputError: Settings are refused or differ from those of an earlier run, or a run failed.
        SystemExit: The parser of ``fit`` refuses an option that all runs share; it has printed why.
    """
    if options.heads and options.variants:
        raise InputError(
            "--heads and --variants are both given, and each of them lists the rows of the table; leave out --heads, and"
            " write heads as variants: 'ABMIL: {model.head: ABMIL}'"
        )
    variants = read_variants(options.variants) if options.variants else []
    refuse_conflicts(variants, shared)
    _refuse_seeds([word for words in (shared, *(variant.words for variant in variants)) for word in words])
    models = list(_models(options.configs, options.heads, variants, shared))  # all, before anything is written
    fits: dict[str, list[Fit]] = {}
    for model in models:
        if model.name in fits:
            raise InputError(f"{model.name} is named twice; name each model once")
        seeds = dict.fromkeys(options.seeds)
        fits[model.name] = [fit for seed in seeds for fit in _plan(model.settings, seed, options.out / model.folder)]
    fit_all([fit for planned in fits.values() for fit in planned])
    return {name: [fit.folder for fit in planned] for name, planned in fits.items()}


def read_options(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return ``configs``, ``heads``, ``variants``, ``seeds``, ``measure`` and ``out``, and the other words."""
    parser = make_parser()
    options, shared = parser.parse_known_args(words)
    refuse_url("--out", options.out)
    refuse_near_misses(parser, shared)
    for name in ("configs", "heads", "seeds"):
        setattr(options, name, [item for items in getattr(options, name) for item in items])
    return options, shared


def _refuse_seeds(words: Sequence[str]) -> None:
    for word in words:
        if word.split("=")[0] in _SEEDS:
            raise InputError(
                f"{word.split('=')[0]} is set in each run by --seeds; name seeds there, such as --seeds 0 1"
            )


def _models(
    configs: Sequence[str], heads: Sequence[str], variants: Sequence[Variant], shared: Sequence[str]
) -> Iterator[_Model]:
    """Yield each config with each variant or head, or with its own head where none is named."""
    for config in configs:
        base, stem = resolve(["--config", config]), Path(config).stem
        for variant in variants:
            settings = _resolve_variant(config, base, variant, shared)
            yield _Model(f"{stem}/{variant.name}", f"{stem}/{variant.folder}", settings)
        for head in [] if variants else heads or [""]:
            settings = _resolve(config, base, [*([f"--model.head={head}"] if head else []), *shared])
            name = f"{stem}/{_head_of(settings).rpartition('.')[2]}"
            yield _Model(name, name, settings)


def _resolve_variant(config: str, base: dict[str, Any], variant: Variant, shared: Sequence[str]) -> dict[str, Any]:
    """Return the settings of a variant.

    Raises:
        InputError: An option is refused; the parser has printed why.
    """
    try:
        return _resolve(config, base, [*variant.words, *shared])
    except InputError as error:
        raise InputError(f"the variant {variant.name!r} is refused: {error}") from error
    except SystemExit as end:
        raise InputError(f"the variant {variant.name!r} is refused with {config}, for the reason above") from end


def _resolve(config: str, base: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """Return the settings of a fit whose head, if it is not of the class in ``base``, has its own defaults."""
    settings = resolve(["--config", config, *words])
    if _head_of(base) in ("", _head_of(settings)):
        return settings
    # jsonargparse hands the settings of the replaced head on to the new one where it has arguments of the same names
    return resolve(["--config", config, _BARE_HEAD, *words])


def _head_of(settings: dict[str, Any]) -> str:
    """Return the class path of the head, or nothing if the settings name none."""
    model = settings.get("model") or {}
    return str((model.get("init_args", {}).get("head") or {}).get("class_path", ""))


def _plan(settings: dict[str, Any], seed: int, folder: Path) -> list[Fit]:
    settings = copy.deepcopy(settings)
    data = settings["data"]["init_args"]
    settings["seed_everything"] = data["seed"] = seed
    folder = folder / f"seed-{seed}"
    return [plan_fit(settings, folder)] if data.get("fold") is None else plan_fold_fits(settings, folder)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options of a comparison that are not those of a fit."""
    parser = argparse.ArgumentParser(
        prog="e2e-abmilx compare",
        description="Fit and test heads, or variants of a model, on one cohort with the same splits, seeds and budget, each"
        " run in a process of its own, and print them in one table.",
        epilog="All other options of `e2e-abmilx fit` apply to all runs. A head of the config's class keeps the config's"
        " settings; a head of another class has its own defaults, whereas `fit --model.head` keeps those settings of the"
        " config's head that the new one has too. Where a config sets data.fold, all folds are run. The same command"
        " resumes an interrupted comparison.",
        usage="%(prog)s [-h] --configs CONFIG ... [--heads HEAD ... | --variants FILE] [--seeds SEED ...]"
        " [--measure NAME] [--out OUT] [options of fit]",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--configs", type=_list, nargs="+", required=True, metavar="CONFIG",
        help="configs of fits, such as one for training end to end and one for training on features",
    )  # fmt: skip
    parser.add_argument(
        "--heads",
        type=_list,
        nargs="+",
        default=[],
        metavar="HEAD",
        help="names or class paths; by default the head of each config",
    )
    parser.add_argument(
        "--variants", type=Path, metavar="FILE",
        help="YAML file with a name and options of fit for each row, instead of --heads:"
        " 'ABMILX, α = 1: {model.head: ABMILX, model.head.alpha_init: 1.0}'",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", type=_list, nargs="+", default=[[0]], metavar="SEED",
        help="seeds of weights and draws (default: 0); data.split_seed is that of made folds",
    )  # fmt: skip
    parser.add_argument(
        "--measure", metavar="NAME",
        help="measure of the table, by its name in metrics.csv, such as qwk, accuracy or c_index (default: AUC, C-index"
        " or R², by the task)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=Path("runs/compare"), help="folder of all runs (default: %(default)s)"
    )
    return parser


def _list(text: str) -> list[Any]:
    """Parse one item, or several as ``a,b`` or ``[a,b]``, as the other commands do."""
    value = yaml.safe_load(text)
    if isinstance(value, str) and value == text and "," in text:
        return [item for part in text.split(",") for item in _list(part.strip())]
    return value if isinstance(value, list) else [value]
