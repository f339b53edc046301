"""The values of a study's config that follow from its table and its slides."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from e2e_abmilx.cohort import Case, CohortError, CohortPlan, check_splits
from e2e_abmilx.study.recipe import MONITORS
from e2e_abmilx.study.survey import Cut, Survey
from e2e_abmilx.study.table import Table

_STEP = 1024  # patches of a training step
_LARGEST_BAG = 256
_FEW = 5  # validation cases of a class; an AUC of fewer is mostly chance
_RARE = 0.2  # fraction of the cases


def choose_folds(table: Table, matched: Sequence[Case]) -> dict[str, Any]:
    """Return the settings of folds: those of the table, five or fewer to be made, or none where the table has splits.

    There are fewer than five, and at least three, where a class has fewer patients than folds.
    """
    own = sorted({case.split for case in table.cases if case.split}, key=lambda split: (len(split), split))
    if own and not own[0].isdigit():
        return {"fold": None}
    if own:
        why = {"fold": "the table's own, tested on; crossval tests each in turn", "folds": "as the table has"}
        return {"fold": int(own[0]), "folds": len(own), "why": why}
    groups = defaultdict[str, set[str]](set)
    for case in matched:
        for name in _strata(table, case):
            groups[name].add(case.group or case.id)
    smallest = min(map(len, groups.values()))
    folds = max(3, min(5, smallest))
    why = {"fold": "tested on; crossval tests each in turn", "folds": "one tests, one validates; whole patients"}
    if folds < 5:
        why["folds"] += f"; five need five patients with each outcome, the rarest has {smallest}"
    return {"fold": 0, "folds": folds, "why": why}


def split_cases(plan: CohortPlan, table: Table, matched: Sequence[Case]) -> list[Case]:
    """Return the cases that have slides, with the splits that a fit will use.

    Raises:
        CohortError: The splits cannot be used, or a target is missing.
    """
    found = {case.id: case for case in matched}
    split = plan.split(table.cases, "fit")
    cases = [found[case.id]._replace(split=case.split) for case in split if case.id in found]
    check_splits(cases, needed=("train", "val"))
    plan.number(cases)
    return cases


def choose_bins(plan: CohortPlan, table: Table, matched: Sequence[Case]) -> tuple[list[Case], int]:
    """Return the split cases, and the largest number of time bins up to 4 that the training events fill.

    Raises:
        CohortError: As :func:`split_cases`, or there are too few events for two bins.
    """
    for plan.time_bins in (4, 3):
        try:
            return split_cases(plan, table, matched), plan.time_bins
        except CohortError as error:
            if "cannot fill" not in str(error):
                raise
    plan.time_bins = 2
    return split_cases(plan, table, matched), 2


def choose_training(table: Table, cases: Sequence[Case], cut: Cut) -> dict[str, Any]:
    """Return sizes of bags and batches, the number of epochs, the metric, and the reasons."""
    bag = 8
    while 2 * bag <= min(cut.median, _LARGEST_BAG):
        bag *= 2
    train = sum(case.split == "train" for case in cases)
    batch = max(1, min(8, _STEP // bag, train // 4))
    epochs = 80 if train < 60 else 40 if train < 400 else 20
    fewest = min(count_outcomes(table, [case for case in cases if case.split == "val"]).values())
    monitor = "val/loss" if fewest < _FEW else MONITORS[table.target]
    why = {
        "bag": f"drawn anew for each step, a quarter coarse; slides have about {cut.median}",
        "batch": f"cases a step, so {batch * bag} patches; halve patches_per_bag if memory is short",
        "epochs": f"{train} training cases, so {epochs * max(1, train // batch)} steps",
    }
    if monitor == "val/loss":
        why["monitor"] = f"the rarest outcome has {fewest} validation cases, too few for {MONITORS[table.target]}"
    return {"bag": bag, "batch": batch, "epochs": epochs, "monitor": monitor, "why": why}


def explain_cut(cut: Cut, survey: Survey) -> dict[str, str]:
    """Return the reasons for the scales and the patch size."""
    coarsest = max(found.mpp for found in survey.resolutions.values())
    mpp = f"µm/px, fine and coarse; the coarsest slide that was opened has {coarsest:.3g}"
    if cut.mpp[0] < 0.5:
        mpp = f"µm/px; slides are small, so the finest that all have is used ({coarsest:.3g})"
    size = "pixels, of which crops of 224 are seen, the size that ImageNet's weights know"
    if cut.patch_size < 256:
        size = f"pixels; a slide has about {cut.median} patches, and hardly any of 256"
    return {"mpp": mpp, "patch_size": size}


def doubts_of_cases(table: Table, cases: Sequence[Case]) -> list[str]:
    """Return the questions that the numbers of cases leave open."""
    doubts = []
    total = count_outcomes(table, cases)
    for split in ("train", "val", "test"):
        there = count_outcomes(table, [case for case in cases if case.split == split])
        if sum(case.split == split for case in cases) and (absent := [name for name in total if not there[name]]):
            doubts.append(
                f"The {split} split has no case of {', '.join(absent)}: are there too few? Add cases, or merge classes."
            )
    if table.target == "label":
        rare = {name: count for name, count in total.items() if count < _RARE * len(cases) * 2 / len(total)}
        if rare:
            listed = ", ".join(f"{name} ({count} of {len(cases)})" for name, count in rare.items())
            doubts.append(f"Should rare classes be drawn as often as others? {listed}: `--data.balanced true`")
    if not any(case.split == "test" for case in cases):
        doubts.append(
            "Is there a test set elsewhere? The table's splits have no test cases, so the run ends without a test;"
            " `--columns '{split: null}'` has folds made instead"
        )
    return doubts


def doubts_of_slides(table: Table, matched: Sequence[Case], survey: Survey, cut: Cut) -> list[str]:
    """Return the questions that the slides leave open."""
    doubts = []
    lacking = len(table.cases) - len(matched)
    if lacking:
        doubts.append(
            f"Are names misspelt? {lacking} of {len(table.cases)} cases lack slides, and are left out (skip_missing: true);"
            " correct the table or add the slides, and remove that line"
        )
    case_of = {slide: case for case in matched for slide in case.slides}
    for one, other, how in survey.copies:
        first, second = case_of.get(one), case_of.get(other)
        if first and second and first.group != second.group:
            labels = "" if first.label == second.label else f", and labelled {first.label} and {second.label}"
            doubts.append(
                f"Are slides `{one}` and `{other}` the same ({how})? They belong to different patients{labels}, so that one"
                " may train and the other test; remove a row, or give both the same patient"
            )
    if cut.without:
        name, reason = next(iter(cut.without.items()))
        doubts.append(
            f"Is there tissue on all slides? {len(cut.without)} of {len(cut.without) + len(cut.patches)} that were tried have"
            f" no patch, such as `{name}`, and their cases are left out (skip_missing: true): {reason}"
        )
    return [*doubts, *_doubts_of_resolutions(survey)]


def _doubts_of_resolutions(survey: Survey) -> list[str]:
    values = [found.mpp for found in survey.resolutions.values()]
    middle = statistics.median(values)
    coarse = [name for name, found in survey.resolutions.items() if found.mpp > 1.5 * middle]
    if not coarse:
        return []
    question = (
        f"Should the coarsest slides decide? {len(coarse)}, such as `{coarse[0]}`, have up to {max(values):.3g} µm/px, and"
        f" half have {middle:.3g}; remove them from the table and run init again for finer scales"
    )
    return [question]


def _strata(table: Table, case: Case) -> list[str]:
    """Return the outcomes of a case that every split needs."""
    if table.target == "survival":
        return ["event" if case.event else "censored"]
    if table.target == "multi_label":
        known = zip(table.classes, case.labels, strict=True)
        return [f"{name} {'+' if label else '-'}" for name, label in known if label >= 0]
    return [case.label if table.target == "label" else "any value"]


def count_outcomes(table: Table, cases: Sequence[Case]) -> Counter[str]:
    """Count the outcomes that occur in the table among some of the cases; each is a key, if only with 0."""
    names = list(table.classes) if table.target == "label" else []
    names = names or sorted({name for case in table.cases for name in _strata(table, case)})
    found = Counter(dict.fromkeys(names, 0))
    found.update(name for case in cases for name in _strata(table, case))
    return found
