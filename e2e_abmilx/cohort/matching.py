"""Cases matched with the slides that are there, and labels as numbers."""

import logging
import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from e2e_abmilx.cohort.entries import Case
from e2e_abmilx.cohort.label_tables import TCGA_SLIDE, CohortError, slide_name, suggest

logger = logging.getLogger(__name__)

# Names compared in search of near misses, about two seconds' worth.
_COMPARISONS = 50_000


def encode_labels(cases: Sequence[Case], classes: Sequence[str] | None) -> tuple[list[int], tuple[str, ...]]:
    """Number the labels of a cohort.

    Args:
        cases: The cohort.
        classes: The classes in order; by default those of the cohort, sorted (numbers as numbers).

    Returns:
        The class number of each case, and the classes.

    Raises:
        CohortError: A label is missing or outside the classes.
    """
    unlabelled = [case.id for case in cases if not case.label]
    if unlabelled:
        raise CohortError(
            f"{len(unlabelled)} of {len(cases)} cases have no label, first {unlabelled[0]} (NA, None, - and the like mean"
            " none); complete the table, take their rows out, or say which column is the label with columns:"
            " {label: NAME}"
        )
    found = sorted({case.label for case in cases}, key=_numbers_first)
    order = tuple(str(name) for name in classes) if classes is not None else tuple(found)
    unknown = [label for label in found if label not in order]
    if unknown:
        example = next(case for case in cases if case.label == unknown[0])
        raise CohortError(
            f"label {unknown[0]!r}{suggest(unknown[0], order)} of case {example.id} is not one of the classes"
            f" {list(order)}; correct the table or the list of classes"
        )
    return [order.index(case.label) for case in cases], order


def encode_multi_labels(cases: Sequence[Case], classes: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the labels of a multi-label cohort: for each class 1, 0, or -1 where it is unknown.

    Args:
        cases: The cohort.
        classes: The classes, in the order of each case's labels.

    Raises:
        CohortError: A case has no known label, or a class no case of which it is known.
    """
    unlabelled = [case.id for case in cases if max(case.labels) < 0]
    if unlabelled:
        raise CohortError(
            f"{len(unlabelled)} of {len(cases)} cases have no known label, first {unlabelled[0]}; complete the columns"
            f" {', '.join(classes)}, or take their rows out"
        )
    for name, column in zip(classes, zip(*(case.labels for case in cases), strict=True), strict=True):
        if max(column) < 0:
            raise CohortError(
                f"class {name!r} is unknown in all {len(cases)} cases; complete its column, or take it out of the classes"
            )
    return [case.labels for case in cases]


def match_slides(cases: Sequence[Case], cached: Iterable[str], where: Path) -> tuple[list[Case], list[str]]:
    """Find which cases have all their slides.

    A name of the table is a slide's when it is the same, apart from a known file ending. TCGA slides are also found
    without the uuid of their file (``TCGA-XX-XXXX-01Z-00-DX1``), and all slides of a patient by the patient's barcode
    (``TCGA-XX-XXXX``). Where no part of a cell that was parted at ``;`` is a slide, the whole may be. Accents match in whichever way Unicode spells them, and ``7.0`` matches a slide ``7`` where there
    is no ``7.0``. Nothing else matches.

    Args:
        cases: The cohort.
        cached: Names of the slides that are there.
        where: The folder that they are in, for the message.

    Returns:
        The cases with every slide, under the names that are there, and a line for each slide that is missing or has
        no label.

    Raises:
        CohortError: Two cases have one slide.
    """
    names = _Names(cached)
    cases = [names.rejoined(case) for case in cases]
    wanted = [(case, slide, names.find(slide)) for case in cases for slide in case.slides]
    owners: dict[str, str] = {}
    for case, _, found in wanted:
        for slide in found:
            if owners.setdefault(slide, case.id) != case.id:
                raise CohortError(
                    f"slide {slide!r} in {where} belongs to case {owners[slide]} and to case {case.id};"
                    " a slide has one case"
                )
    by_barcode = sum(found != [slide] for _, slide, found in wanted if found)
    if by_barcode:
        logger.info("%d names found by file ending, other spelling or TCGA barcode in %s", by_barcode, where)
    spare = names.there - owners.keys()
    missing = [(case, slide) for case, slide, found in wanted if not found]
    complaints = [
        f"case {case.id}: {names.explain(slide, where)}{suggest(slide, spare) if number * len(spare) < _COMPARISONS else ''}"
        for number, (case, slide) in enumerate(missing)
    ]
    complaints += [f"slide {slide!r} in {where} has no label" for slide in sorted(spare)]
    slides: dict[str, list[str]] = defaultdict(list)
    for case, _, found in wanted:
        slides[case.id] += found
    lacking = {case.id for case, _ in missing}
    matched = [
        case._replace(slides=tuple(dict.fromkeys(slides[case.id])))
        for case in cases
        if case.id not in lacking
    ]
    return matched, complaints


class _Names:
    """Names of slides that are there, found by the rules of :func:`match_slides`."""

    def __init__(self, there: Iterable[str]) -> None:
        self.there = set(there)
        self._plain: dict[str, list[str]] = defaultdict(list)
        self._patient: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self.there):
            plain = slide_name(name)
            tcga = TCGA_SLIDE.fullmatch(plain)
            for key in {plain, unicodedata.normalize("NFC", plain), *([tcga["slide"]] if tcga else [])}:
                self._plain[key].append(name)
            if tcga:
                self._patient[tcga["patient"]].append(name)

    def find(self, name: str) -> list[str]:
        """The slides that a name means; none where it means none, or one of several."""
        if name in self.there:
            return [name]
        found = self._candidates(name)
        return found if len(found) == 1 else self._patient.get(name, [])

    def rejoined(self, case: Case) -> Case:
        """A case whose cell was parted at ``;`` although that is part of a slide's name."""
        whole = ";".join(case.slides)
        parted = len(case.slides) > 1 and not any(self.find(slide) for slide in case.slides)
        return case._replace(slides=(whole,)) if parted and self.find(whole) else case

    def explain(self, name: str, where: Path) -> str:
        """Why a name means no slide."""
        found = self._candidates(name)
        if found:
            return f"slide {name!r} is one of {found} in {where}; write the whole name"
        return f"no slide {name!r} in {where}"

    def _candidates(self, name: str) -> list[str]:
        found = self._plain.get(name, [])
        number = name.removesuffix(".0")
        if not found and number.isdigit():  # as spreadsheets and pandas write the names 1, 2, 3
            found = self._plain.get(number, [])
        tcga = TCGA_SLIDE.fullmatch(name)
        if found or not tcga:
            return found
        # a name with a uuid may mean a file without one, never a file with another
        return [one for one in self._plain.get(tcga["slide"], []) if slide_name(one) == tcga["slide"]]


def _numbers_first(label: str) -> tuple[float, str]:
    try:
        return float(label), label
    except ValueError:
        return math.inf, label
