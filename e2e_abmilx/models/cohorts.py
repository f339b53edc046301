"""The cases that a command predicts: slides, stores or features, with or without a label table."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e_abmilx.cache import cache_slides
from e2e_abmilx.cache.manifest import CachedSlide
from e2e_abmilx.cohort import Case, CohortPlan
from e2e_abmilx.cohort.targets import NumberedTargets
from e2e_abmilx.data.bag import Target
from e2e_abmilx.data.contract import InputContract
from e2e_abmilx.data.feature_bags import FeatureBags
from e2e_abmilx.data.features import FeatureFolder
from e2e_abmilx.data.inputs import FeatureInput, PatchInput
from e2e_abmilx.data.slide_bags import WholeSlides
from e2e_abmilx.errors import InputError
from e2e_abmilx.models.inputs import bags_of, tiling_for
from e2e_abmilx.slides.slide_files import find_slides
from e2e_abmilx.store import CohortIndex
from e2e_abmilx.store.format import ReachError
from e2e_abmilx.store.locations import Location, as_location

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """Where the slides of a command come from.

    Attributes:
        slides: Slides to cache first: a folder, a file or a CSV.
        cache: Folder of patch stores; with ``slides``, where they are cached.
        features: Folder of features.
        assume_mpp: Level-0 µm per pixel of slides that state none.
        workers: Slides cached at the same time, and parts of slides read ahead.
    """

    slides: Path | None = None
    cache: str | Path | None = None
    features: Path | None = None
    assume_mpp: float | None = None
    workers: int = 2

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise InputError(f"workers is {self.workers}; it must be at least 1: give the number of cores")

    def collect(self, contract: InputContract, out: Path) -> tuple[Location, list[str], list[CachedSlide]]:
        """Return the folder of stores or features, the names of the slides in it, and the slides that failed.

        Slides are cached into ``out/cache`` unless ``cache`` is given.

        Raises:
            InputError: No source is given, or one that the model does not take, or it holds nothing.
        """
        if isinstance(contract.input, FeatureInput) and self.features is None:
            raise InputError(f"the model takes {contract.input}; give their folder (--features), not slides or a cache")
        if isinstance(contract.input, PatchInput) and self.features is not None:
            raise InputError(
                f"the model takes {contract.input}; give slides (--slides) or a cache (--cache), not features"
            )
        if (self.features is not None) == (self.slides is not None or self.cache is not None):
            raise InputError("give slides (--slides), a cache of slides (--cache) or extracted features (--features)")
        if self.features is not None:
            return self.features, list(FeatureFolder(self.features).files), []
        cache = out / "cache" if self.cache is None else as_location(self.cache)
        if self.slides is not None:
            return self._cache(contract, self.slides, cache)
        stored = CohortIndex(cache).slides()
        if not stored:
            raise InputError(f"{cache} holds no patch store; check the path, or give --slides")
        return cache, stored, []

    def _cache(
        self, contract: InputContract, slides: Path, cache: Location
    ) -> tuple[Location, list[str], list[CachedSlide]]:
        tiling = tiling_for(contract, self.assume_mpp)
        settings = {name: value for name, value in tiling._asdict().items() if name != "quality"}
        rows = cache_slides(slides, cache, quality=tiling.quality, workers=self.workers, **settings)
        failed = [row for row in rows if row.status == "failed"]
        if len(failed) == len(rows):
            raise InputError(f"all {len(rows)} slides failed, first {failed[0].slide}: {failed[0].reason}")
        lost = {row.slide for row in failed}
        return cache, [file.name for file in find_slides(slides) if file.name not in lost], failed


def gather(
    sources: Sources,
    labels: Path | None,
    contract: InputContract,
    out: Path,
    *,
    stage: str,
    columns: dict[str, str | None] | None,
    skip_missing: bool,
) -> tuple[WholeSlides | FeatureBags, list[str]]:
    """Return the bags of all cases that can be read, and one sentence per slide or case that cannot.

    The arguments are those of :meth:`Sources.collect` and :func:`read_cases`, which also list the errors.
    """
    folder, names, failed = sources.collect(contract, out)
    lost = [row.slide for row in failed]
    cases, targets = read_cases(
        labels, names, folder, contract, stage=stage, columns=columns, skip_missing=skip_missing, lost=lost
    )
    cases, targets, damaged = leave_out_damaged(cases, targets, folder, contract)
    return bags_of(cases, folder, contract, targets), [*(f"{row.slide}: {row.reason}" for row in failed), *damaged]


def read_cases(
    labels: Path | None,
    names: Sequence[str],
    folder: Location,
    contract: InputContract,
    *,
    stage: str,
    columns: dict[str, str | None] | None = None,
    skip_missing: bool = False,
    lost: Collection[str] = (),
) -> tuple[list[Case], list[Target]]:
    """Return the cases of a label table and their targets, numbered as the model numbers them.

    Args:
        labels: The table; without one every slide is a case of unknown target.
        names: Names of the slides that exist.
        folder: Their folder, for messages.
        contract: Input contract of the model.
        stage: ``"predict"``, where targets may be unknown, or ``"test"``.
        columns: The table's own names of columns, as in :class:`~e2e_abmilx.cohort.CohortPlan`; splits are not read,
            because all cases are wanted.
        skip_missing: Leave out cases whose slides are missing.
        lost: Names of slides that failed; their cases are left out, and not predicted from their other slides.

    Raises:
        CohortError: The table cannot be used, or a label is not one of the model's classes.
        InputError: No case has all of its slides.
    """
    several = contract.target == "multi_label"
    plan = CohortPlan(
        labels,
        columns={"split": None, "fold": None, **(columns or {})},
        target=contract.target or ("survival" if contract.time_edges else "label"),  # type: ignore[arg-type] # checked when saved
        classes=list(contract.classes) if several else None,
        skip_missing=skip_missing,
    )
    read = plan.read([*names, *lost], folder, stage)
    cases = [case for case in read if not set(case.slides) & set(lost)]
    if not cases:
        raise InputError(f"no case of {labels or folder} has all of its slides in {folder}; check both")
    known = NumberedTargets([], contract.classes, contract.time_edges)
    numbers = plan.number(cases, stage, known).numbers
    targets = [Target(number, case.time, case.event) for number, case in zip(numbers, cases, strict=True)]
    return cases, targets


def leave_out_damaged(
    cases: Sequence[Case], targets: Sequence[Target], folder: Location, contract: InputContract
) -> tuple[list[Case], list[Target], list[str]]:
    """Leave out the cases with a store or a file of features that cannot be opened, and return the reasons.

    Raises:
        InputError: That is true of all cases.
        ReachError: The bucket of the stores does not answer.
    """
    features = FeatureFolder(folder) if isinstance(contract.input, FeatureInput) else None
    kept: list[tuple[Case, Target]] = []
    reasons = []
    stores = CohortIndex(folder)
    for case, target in zip(cases, targets, strict=True):
        try:
            for slide in case.slides:
                stores[slide] if features is None else features.facts(slide)
            kept.append((case, target))
        except ReachError:
            raise
        except InputError as error:
            logger.warning("case %s is left out: %s", case.id, error)
            reasons.append(f"{case.id}: {error}")
    stores.save()
    if not kept:
        raise InputError(f"none of {len(cases)} cases can be read, first: {reasons[0]}")
    return [case for case, _ in kept], [target for _, target in kept], reasons
