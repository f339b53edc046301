"""The command ``e2e-abmilx evaluate``: external validation of a trained model."""

import logging
import math
from pathlib import Path

import pandas as pd

from e2e_abmilx.cohort.group_columns import read_group_columns
from e2e_abmilx.models.cohorts import Sources, gather
from e2e_abmilx.models.folder import read_internal_measures
from e2e_abmilx.models.leaks import refuse_seen_cases
from e2e_abmilx.models.loading import find_models, load_model
from e2e_abmilx.models.model import Model
from e2e_abmilx.models.predict import write_predictions
from e2e_abmilx.reports.external import write_external_report
from e2e_abmilx.reports.summary import find_overlap, pool
from e2e_abmilx.runs.read import columns_named, is_finished, read_predictions, read_run

logger = logging.getLogger(__name__)


def evaluate(
    model: str | list[str],
    labels: Path,
    out: Path,
    slides: Path | None = None,
    cache: str | Path | None = None,
    features: Path | None = None,
    columns: dict[str, str | None] | None = None,
    groups: list[str] | None = None,
    allow: list[str] | None = None,
    skip_missing: bool = False,
    assume_mpp: float | None = None,
    workers: int = 2,
    device: str | None = None,
) -> list[str]:
    """Validate a trained model on another cohort, and report it next to the internal test.

    Classes, time bins and threshold are those of the model. All cases of the label table are evaluated, whatever its
    splits. Cases that the model was trained or validated on are refused, by name and by the look of their slides.
    Written are ``predictions.csv`` and ``evaluation.html``, ``.csv`` and ``.json``: discrimination, calibration and
    their difference from the internal test, each with a 95 % interval, and a table per column of groups. The internal
    test is that of the run that the checkpoint lies in, or what an exported model keeps of it.

    Args:
        model: A checkpoint, the folder of a run or of a cross-validation, an exported folder, ``hf://ORG/NAME``, or a
            list of these.
        labels: Label table (CSV) of the external cohort.
        out: Folder of the report, of the predictions and of the cache.
        slides: Slides: a folder, a file or a CSV.
        cache: Folder of patch stores or its URL; with ``slides``, where they are cached, by default ``out/cache``.
        features: Folder of features, for models of features.
        columns: The table's own names of its columns, such as ``{label: NAME}``.
        groups: Columns of the table by whose values the results are broken down, such as site or scanner.
        allow: Names of cases or slides, or patterns such as ``slide-1*``, that look or are called like training cases
            but are others.
        skip_missing: Leave out cases of the table whose slides are missing.
        assume_mpp: Level-0 µm per pixel of slides that state none.
        workers: Slides cached at the same time, and parts of slides read ahead.
        device: Where to compute; by default a CUDA device if there is one.

    Returns:
        One sentence per slide or case that failed.

    Raises:
        InputError: There is no model or no slide, or slides or labels do not fit the model.
        ContractError: The model has seen some of the cases.
    """
    paths = find_models(model)
    loaded = load_model(list(map(str, paths)), device=device)
    grouping = read_group_columns(labels, groups or [], columns or {})
    sources = Sources(slides, cache, features, assume_mpp, workers)
    bags, left_out = gather(
        sources, labels, loaded.contract, out, stage="test", columns=columns, skip_missing=skip_missing
    )
    unchecked = refuse_seen_cases(bags, loaded.contracts, allow or ())
    for sentence in unchecked:
        logger.warning("%s", sentence)
    internal = _internal_test(paths)  # it may be refused, so before hours of prediction
    failed = write_predictions(loaded, bags, out, threads=workers)
    table = read_predictions(out / "predictions.csv").assign(threshold=_or_nan(loaded.threshold))
    facts = [*_facts(loaded, paths, labels, len(table)), *(("not checked", sentence) for sentence in unchecked)]
    title = f"External validation on {labels.name}"
    cox = len(loaded.contract.classes) < 2  # the risk of a model with time bins is no log hazard
    print(write_external_report(internal, table, grouping, out, title=title, facts=facts, log_hazard=cox))
    return [*left_out, *failed]


def _internal_test(paths: list[Path]) -> pd.DataFrame | dict[str, object] | None:
    """Return the predictions of the models' own tests, what an exported model keeps of them, or None."""
    if len(paths) == 1 and paths[0].is_dir():
        return read_internal_measures(paths[0])
    # a run tests its best checkpoint only
    folders = [path.parent for path in paths if path.name == "best.ckpt"]
    if len(folders) < len(paths) or not all(
        (one / "predictions.csv").is_file() and is_finished(one) for one in folders
    ):
        logger.warning(
            "the internal test of the model is not next to its checkpoint, so only the external one is reported"
        )
        return None
    runs = [read_run(one) for one in folders]
    overlap = find_overlap(runs)
    if overlap:
        logger.warning("%s, so their tests cannot be pooled, and only the external one is reported", overlap)
        return None
    pooled = pool(runs)
    survival = columns_named("survival_", pooled)  # an ensemble predicts the months that all its members do
    return pooled.drop(columns=[name for name in survival if not all(name in run.predictions for run in runs)])


def _facts(model: Model, paths: list[Path], labels: Path, cases: int) -> list[tuple[str, object]]:
    facts: list[tuple[str, object]] = [("model", ", ".join(map(str, paths))), ("labels", labels), ("cases", cases)]
    if len(model.tasks) > 1:
        facts.append(("internal test", "that of each model by itself; the external cases are predicted by their mean"))
    if model.contract.input is not None:
        facts.append(("input", model.contract.input))
    for contract in model.contracts:
        if contract.threshold is not None:
            fitted = contract.threshold
            facts.append(
                (
                    "threshold",
                    f"{fitted.value:.4g} ({fitted.rule or 'fitted'} on {fitted.cases or 'the'} {fitted.split} cases)",
                )
            )
    return facts


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
