"""The command ``e2e-abmilx predict --model``: slides are predicted without a config and without labels."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import pandas as pd

from e2e_abmilx.data.feature_bags import FeatureBags
from e2e_abmilx.data.slide_bags import WholeSlides
from e2e_abmilx.errors import InputError
from e2e_abmilx.heatmaps import Kind, check_drawable
from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.io.progress import show_progress
from e2e_abmilx.models.cohorts import Sources, gather
from e2e_abmilx.models.loading import load_model
from e2e_abmilx.models.model import Model
from e2e_abmilx.models.predictions import CasePrediction
from e2e_abmilx.store import PatchStore
from e2e_abmilx.store.format import ReachError
from e2e_abmilx.store.locations import store_path
from e2e_abmilx.tasks.case_maps import MapWriter
from e2e_abmilx.tasks.slide_heatmaps import check_kind
from e2e_abmilx.training.callbacks.predicted_slides import patches_by_slide

logger = logging.getLogger(__name__)

PARTIAL = "predictions.partial.csv"


def predict(
    model: str | list[str],
    out: Path,
    slides: Path | None = None,
    cache: str | Path | None = None,
    features: Path | None = None,
    labels: Path | None = None,
    columns: dict[str, str | None] | None = None,
    heatmaps: Kind | None = None,
    skip_missing: bool = False,
    assume_mpp: float | None = None,
    workers: int = 2,
    device: str | None = None,
) -> list[str]:
    """Predict slides with one trained model, or with several as an ensemble, and write ``predictions.csv``.

    Slides are cut into patches as the model's training slides were. The table has one row per case: label, time and
    event where a label table states them, and the scores; several models add the standard deviation, minimum and
    maximum over the models of each score. Cases that cannot be read are left out and reported at the end.

    Args:
        model: A checkpoint, the folder of a run or of a cross-validation, an exported folder, ``hf://ORG/NAME``, or a
            list of these.
        out: Folder of the table, of the cache, of the attention that the viewer shows, and of heatmaps.
        slides: Slides: a folder, a file or a CSV.
        cache: Folder of patch stores or its URL; with ``slides``, where they are cached, by default ``out/cache``.
        features: Folder of features, for models of features.
        labels: Label table (CSV) that says which slides are a case; by default every slide is a case. Labels may be
            absent.
        columns: The table's own names of its columns, such as ``{slide: NAME}``.
        heatmaps: Write ``heatmaps/<slide>`` for each slide, which show this: ``attention``, its ``rank``, or
            ``contribution``. Heatmaps of an ensemble show the first model.
        skip_missing: Leave out cases of the table whose slides are missing.
        assume_mpp: Level-0 µm per pixel of slides that state none.
        workers: Slides cached at the same time, and parts of slides read ahead.
        device: Where to compute; by default a CUDA device if there is one.

    Returns:
        One sentence per slide or case that failed.

    Raises:
        InputError: There is no model or no slide, or the slides do not fit the model.
    """
    loaded = load_model(model, device=device)
    sources = Sources(slides, cache, features, assume_mpp, workers)
    bags, left_out = gather(
        sources, labels, loaded.contract, out, stage="predict", columns=columns, skip_missing=skip_missing
    )
    if heatmaps is not None:
        _check_heatmaps(loaded, bags, heatmaps)

    def draw(prediction: CasePrediction) -> None:
        if heatmaps is not None and isinstance(bags, WholeSlides):
            loaded.write_heatmaps(prediction, bags.cache, out / "heatmaps", heatmaps)

    failed = write_predictions(loaded, bags, out, threads=workers, also=draw)
    return [*left_out, *failed]


def write_predictions(
    model: Model,
    bags: WholeSlides | FeatureBags,
    out: Path,
    *,
    threads: int,
    also: Callable[[CasePrediction], None] = lambda prediction: None,
) -> list[str]:
    """Predict cases and write ``predictions.csv``, sorted by case; return one sentence per case that failed.

    Until all cases are predicted, the finished ones are in ``predictions.partial.csv``. For the viewer, the attention of
    the first model to patches of slides goes to ``attention/``.

    Args:
        model: The model.
        bags: The bags of the cases.
        out: Folder of the table.
        threads: Threads that read ahead.
        also: Called with each prediction.

    Raises:
        InputError: All cases failed.
        ReachError: The bucket of the patches does not answer; the finished cases stay in ``predictions.partial.csv``.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    failed: list[str] = []
    maps = _map_writer(bags, out)
    with (
        open(out / PARTIAL, "w", newline="", encoding="utf-8") as file,
        show_progress("predicting", len(bags.cases), "cases") as progress,
    ):
        for found in model.predict_cases(bags, threads=threads):
            try:
                if isinstance(found, InputError):
                    raise found
                rows.append(found.row())
                _append(rows, file)
                maps.write(model.tasks[0], found.case, found.scores)
                also(found)
            except ReachError:
                raise  # every other case would fail, too
            except InputError as error:
                logger.warning("%s", error)
                failed.append(str(error))
            progress.advance()
    if not rows:
        (out / PARTIAL).unlink()
        raise InputError(f"none of {len(bags.cases)} cases could be predicted, first: {failed[0]}")
    with atomic_write(out / "predictions.csv") as partial:
        table = pd.DataFrame(rows).sort_values("case")
        table.to_csv(partial, index=False, float_format="%.9g", lineterminator="\n")
    (out / PARTIAL).unlink()
    maps.publish(maps.written)
    return failed


def _map_writer(bags: WholeSlides | FeatureBags, out: Path) -> MapWriter:
    """Return what writes the maps of the cases; it writes none of features, which do not record where patches lie."""
    if isinstance(bags, FeatureBags):
        return MapWriter(out, Path(), {})
    maps = MapWriter(out, bags.cache, patches_by_slide(bags))
    if maps.reason:
        logger.info("%s", maps.reason)
    return maps


def _append(rows: Sequence[Mapping[str, object]], file: TextIO) -> None:
    """Write the last row, under a header if it is the first."""
    pd.DataFrame(rows[-1:]).to_csv(file, index=False, header=len(rows) == 1, float_format="%.9g", lineterminator="\n")
    file.flush()


def _check_heatmaps(model: Model, bags: WholeSlides | FeatureBags, kind: Kind) -> None:
    """Refuse early what could not be drawn after hours of prediction."""
    check_kind(model.tasks[0].head, kind)
    if isinstance(bags, FeatureBags):
        raise InputError("heatmaps are drawn on slides, and features do not record where their patches lie on them")
    for slide in {part.slide for part in bags.parts}:
        check_drawable(PatchStore(store_path(bags.cache, slide)))
