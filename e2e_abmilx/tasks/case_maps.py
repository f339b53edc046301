"""The maps of cases that a task has predicted, written for the viewer while the task goes on to other cases."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from e2e_abmilx.errors import InputError
from e2e_abmilx.heads import PoolingHead
from e2e_abmilx.heatmaps import CaseMap, SlideMap, case_file_name, check_drawable, write_case_map
from e2e_abmilx.heatmaps.attention import rank_of
from e2e_abmilx.heatmaps.case_map import ATTENTION
from e2e_abmilx.store import PatchStore
from e2e_abmilx.store.locations import Location, store_path
from e2e_abmilx.tasks.base import BagTask
from e2e_abmilx.tasks.slide_heatmaps import contribution_of, slide_attentions

logger = logging.getLogger(__name__)


def case_map_of(task: BagTask, case: str, sizes: Mapping[str, int], cache: Location) -> CaseMap:
    """Return the map of the case that the task predicted last, with contributions where the head has any.

    Apple's GPUs have no contributions, which are computed in float64.

    Args:
        task: The task.
        case: Name of the case.
        sizes: Number of patches of each slide of the case, in the order of the prediction.
        cache: Folder of the slides' stores.

    Raises:
        HeatmapError: A store lacks the positions of its patches, or has other positions.
    """
    patches = task.predicted_patches
    assert patches is not None  # the task has just predicted this case
    has_contributions = isinstance(task.head, PoolingHead) and patches.features.device.type != "mps"
    contribution = contribution_of(task) if has_contributions else None
    rank = rank_of(patches.output.attention[0].mean(dim=0).cpu().numpy())
    slides = slide_attentions(task, sizes, cache, contribution)
    maps = tuple(SlideMap.of(attention, rank[own]) for _, own, attention in slides)
    return CaseMap(case, contribution.score if contribution else None, maps)


class MapWriter:
    """Write the maps of cases; whatever goes wrong is logged and never ends a test or a prediction.

    Until :meth:`publish`, the maps are in a hidden folder, so that a run that is stopped does not mix them with those of an
    earlier one. Cases with a slide that cannot be drawn have no map.

    Args:
        folder: Folder of ``predictions.csv``; the maps go to its subfolder ``attention``.
        cache: Folder of the slides' stores.
        sizes: Number of patches of each slide, by case and slide, in the order of the prediction; empty if maps
            cannot be written at all.

    Attributes:
        written: Names of the cases whose map this process has written.
        reason: Why some cases have no map, as a sentence for the log; None if all can have one.
    """

    def __init__(self, folder: Path, cache: Location, sizes: Mapping[str, Mapping[str, int]]) -> None:
        self.folder, self.cache = folder, cache
        self.written: list[str] = []
        slides = {slide for own in sizes.values() for slide in own}
        reasons = {slide: reason for slide in sorted(slides) if (reason := _why_not(store_path(cache, slide)))}
        self._sizes = {case: own for case, own in sizes.items() if not own.keys() & reasons.keys()}
        self.reason = None if not reasons else (
            f"the attention of {len(sizes) - len(self._sizes)} of {len(sizes)} cases is not stored, so that the viewer will"
            f" have no overlay of them: {next(iter(reasons.values()))}"
        )  # fmt: skip

    def write(self, task: BagTask, case: str, scores: Mapping[str, float]) -> None:
        """Write the map of the case that the task predicted last, with its scores as ``predictions.csv`` has them."""
        if case not in self._sizes:
            return
        try:
            found = case_map_of(task, case, self._sizes[case], self.cache)
            write_case_map(self._hidden, replace(found, predicted=scores))
        except Exception as error:  # noqa: BLE001 - a test of hours must not end because of a picture
            self._sizes = {}  # the next cases would fail alike, each with a warning
            logger.warning(
                "the attention of case %r and of later ones is not stored, so that the viewer will have no overlay of"
                " them (%s: %s)", case, type(error).__name__, error
            )  # fmt: skip
        else:
            self.written.append(case)

    def publish(self, cases: Collection[str]) -> None:
        """Replace the maps of an earlier test or prediction by those of these cases, which any process has written."""
        new, final = self._hidden / ATTENTION, self.folder / ATTENTION
        names = set(map(case_file_name, cases))
        try:
            final.mkdir(parents=True, exist_ok=True)
            for name in names:  # not those that are listed: NFS may list late what another machine has written
                (new / name).replace(final / name)
            for path in _maps_in(new) + [path for path in _maps_in(final) if path.name not in names]:
                path.unlink()
            for folder in (new, self._hidden, final):
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
        except OSError as error:
            logger.warning("%s may hold the attention of an earlier test (%s); delete it", final, error)

    @property
    def _hidden(self) -> Path:
        return self.folder / f".{ATTENTION}.partial"


def _why_not(store: Location) -> str | None:
    """Return why the patches of a store cannot be shown on their slide; None if they can."""
    try:
        check_drawable(PatchStore(store))
    except InputError as error:
        return str(error)
    return None


def _maps_in(folder: Path) -> list[Path]:
    """Return the maps in a folder, and no other files, which are the user's."""
    return list(folder.glob("*-" + 16 * "[0-9a-f]" + ".npz"))
