"""Cases, classes and slides by split, of a cohort whose slides may not be cached yet."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from e2e_abmilx.cohort import SPLITS, Case
from e2e_abmilx.cohort.matching import match_slides
from e2e_abmilx.cohort.targets import NumberedTargets
from e2e_abmilx.data.bag import Target
from e2e_abmilx.datamodules import BagDataModule, FeatureDataModule, SlideDataModule, SyntheticDataModule
from e2e_abmilx.errors import InputError
from e2e_abmilx.slides.slide_files import SlideFile, find_slides
from e2e_abmilx.store import CohortIndex
from e2e_abmilx.store.locations import Location


class PlannedCohort(NamedTuple):
    """The cases of a fit.

    Attributes:
        cases: Cases of each split; validation and test are the same with ``select_on_test``.
        targets: Their targets, numbered as in the fit.
        classes: Names of the classes or time bins.
        missing: What is known about slides that the table names and that do not exist.
        known: Whether any slide exists; if none does, all cases are planned.
    """

    cases: dict[str, list[Case]]
    targets: dict[str, list[Target]]
    classes: tuple[str, ...]
    missing: list[str]
    known: bool

    @property
    def everyone(self) -> list[Case]:
        """Return all cases, each once."""
        return list({case.id: case for cases in self.cases.values() for case in cases}.values())


def read_planned_cohort(data: BagDataModule) -> PlannedCohort:
    """Read and number the cases of a fit, and give the data module what its setup would; no slide need be cached.

    Raises:
        CohortError: The table, its splits or its labels cannot be used, as in a fit.
    """
    if isinstance(data, SyntheticDataModule):
        _refuse_undrawn(data)
    table = data.plan.read_table("fit")
    folder, slides = _existing_slides(data)
    matched, complaints = match_slides(table, slides, folder) if slides else (table, [])
    if not matched:
        matched, slides = table, []
    left_out = len(table) - len(matched)
    missing = [line for line in complaints if line.startswith("case ")] if left_out else []
    data.read_cases = matched
    joined = data.plan.join_held_out(matched)
    cases = {split: [case for case in joined if case.split == split] for split in SPLITS}
    if data.plan.select_on_test:
        cases["val"] = cases["test"]
    numbered = _number(data, matched)
    target_of = {
        case.id: Target(number, case.time, case.event) for number, case in zip(numbered.numbers, matched, strict=True)
    }
    data.cases, data.classes, data.time_edges = {**cases, "all": joined}, numbered.classes, numbered.edges
    targets = {split: [target_of[case.id] for case in chosen] for split, chosen in data.cases.items()}
    data.targets = targets
    return PlannedCohort(cases, targets, numbered.classes, missing, bool(slides))


def _refuse_undrawn(data: SyntheticDataModule) -> None:
    """Refuse synthetic slides that the first fit will draw; until then there is nothing to look at."""
    if not (data.folder / "labels.csv").exists():
        raise InputError(
            f"{data.folder} holds no slides yet: the first fit draws them; start it once, for example with"
            " --trainer.fast_dev_run true, and plan then"
        )


def _number(data: BagDataModule, cases: Sequence[Case]) -> NumberedTargets:
    if not any(case.split == "train" for case in cases):
        raise InputError(
            "no case of the training split has its slides, so there is nothing to plan; correct data.labels"
        )
    return data.plan.number(cases, "fit")


def _existing_slides(data: BagDataModule) -> tuple[Location, list[str]]:
    """Return the folder and the names of slides that are cached, can be cached, or have features."""
    if isinstance(data, SlideDataModule):
        return data.cache, sorted({*CohortIndex(data.cache).slides()} | {file.name for file in slide_files(data)})
    return data.available()


def slide_files(data: SlideDataModule) -> list[SlideFile]:
    """Return the slides that a fit would cache first."""
    return find_slides(data.slides) if data.slides is not None else []


def describe_cohort(data: BagDataModule, cohort: PlannedCohort) -> dict[str, Any]:
    """Return counts by split: cases, slides, and events, classes or the range of values."""
    splits = {}
    for split in SPLITS:
        cases = cohort.cases[split]
        counts = {"cases": len(cases), "slides": sum(len(case.slides) for case in cases)}
        splits[split] = counts | _describe_targets(data, cohort, split)
    return {"target": data.plan.target, "splits": splits, "cases_without_slides": len(cohort.missing)}


def _describe_targets(data: BagDataModule, cohort: PlannedCohort, split: str) -> dict[str, Any]:
    targets, kind = cohort.targets[split], data.plan.target
    if kind == "survival":
        return {"events": sum(target.event for target in targets)}
    if kind == "regression":
        values = [float(target.label) for target in targets if isinstance(target.label, float)]
        return {"smallest": min(values), "largest": max(values)} if values else {}
    if kind == "multi_label":
        rows = [target.label for target in targets if isinstance(target.label, tuple)]
        return {"classes": {name: sum(row[k] == 1 for row in rows) for k, name in enumerate(cohort.classes)}}
    counts = Counter(target.label for target in targets)
    return {"classes": {name: counts[number] for number, name in enumerate(cohort.classes)}}


def patches_of_features(data: FeatureDataModule, cases: Sequence[Case]) -> dict[str, tuple[int, ...]]:
    """Return the number of patches of each slide, from its file of features."""
    return {slide: (data.folder.shape(slide)[0],) for case in cases for slide in case.slides}
