"""Cases matched with the slides that exist."""

import logging
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from e2e_abmilx.cohort.entries import Case
from e2e_abmilx.cohort.label_tables import TCGA_SLIDE, CohortError, slide_name, suggest

logger = logging.getLogger(__name__)

# Limit of name comparisons in the search for similar names; about two seconds.
_COMPARISONS = 50_000


def match_slides(cases: Sequence[Case], cached: Iterable[str], where: Path | str) -> tuple[list[Case], list[str]]:
    """Find the cases that have all of their slides.

    A name in the table matches the slide of the same name, apart from a known file ending. TCGA slides also match
    without the UUID of their file (``TCGA-XX-XXXX-01Z-00-DX1``), and a patient's barcode (``TCGA-XX-XXXX``) matches
    all slides of the patient. If a cell was split at ``;`` and no part matches, the whole cell may match. Accents match
    in either Unicode form, and ``7.0`` matches a slide ``7`` where there is no ``7.0``. Nothing else matches.

    Args:
        cases: The cohort.
        cached: Names of the slides that exist.
        where: Their folder, for messages.

    Returns:
        The cases that have every slide, with the names of the existing slides, and one line for each slide that is
        missing or has no label.

    Raises:
        CohortError: Two cases have the same slide.
    """
    names = _Names(cached)
    cases = [names.rejoin(case) for case in cases]
    wanted = [(case, slide, names.find(slide)) for case in cases for slide in case.slides]
    owners: dict[str, str] = {}
    slides: dict[str, list[str]] = defaultdict(list)
    for case, _, found in wanted:
        slides[case.id] += found
        for slide in found:
            if owners.setdefault(slide, case.id) != case.id:
                raise CohortError(
                    f"slide {slide!r} in {where} belongs to case {owners[slide]} and to case {case.id};"
                    " a slide has one case"
                )
    respelt = sum(found != [slide] for _, slide, found in wanted if found)
    if respelt:
        logger.info("%d names found by file ending, other spelling or TCGA barcode in %s", respelt, where)
    missing = [(case, slide) for case, slide, found in wanted if not found]
    lacking = {case.id for case, _ in missing}
    matched = [case._replace(slides=tuple(dict.fromkeys(slides[case.id]))) for case in cases if case.id not in lacking]
    spare = names.existing - owners.keys()
    complaints = []
    for number, (case, slide) in enumerate(missing):
        hint = suggest(slide, spare) if number * len(spare) < _COMPARISONS else ""
        complaints.append(f"case {case.id}: {names.explain(slide, where)}{hint}")
    return matched, complaints + [f"slide {slide!r} in {where} has no label" for slide in sorted(spare)]


def require_slides(
    cases: Sequence[Case], cached: Iterable[str], where: Path | str, *, skip_missing: bool
) -> list[Case]:
    """Return the cases that have all of their slides, as :func:`match_slides` finds them.

    With ``skip_missing``, cases that lack slides are left out and logged, instead of refused.

    Raises:
        CohortError: A case lacks slides, or two cases have the same slide.
    """
    matched, complaints = match_slides(cases, cached, where)
    if len(matched) < len(cases) and not skip_missing:
        raise CohortError(
            "\n  ".join([f"{len(cases) - len(matched)} of {len(cases)} cases lack slides:", *complaints])
            + "\ncorrect the table, add the slides, or leave these cases out (skip_missing: true)"
        )
    for line in complaints:
        logger.warning("%s", line)
    return matched


class _Names:
    """Names of existing slides, found by the rules of :func:`match_slides`."""

    def __init__(self, existing: Iterable[str]) -> None:
        self.existing = set(existing)
        self._plain: dict[str, list[str]] = defaultdict(list)
        self._patient: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self.existing):
            plain = slide_name(name)
            tcga = TCGA_SLIDE.fullmatch(plain)
            for key in {plain, unicodedata.normalize("NFC", plain), *([tcga["slide"]] if tcga else [])}:
                self._plain[key].append(name)
            if tcga:
                self._patient[tcga["patient"]].append(name)

    def find(self, name: str) -> list[str]:
        """Return the slides that a name matches; empty where it matches none, or one of several."""
        if name in self.existing:
            return [name]
        found = self._candidates(name)
        return found if len(found) == 1 else self._patient.get(name, [])

    def rejoin(self, case: Case) -> Case:
        """Undo the splitting of a cell at ``;`` where that is part of a slide's name."""
        whole = ";".join(case.slides)
        unknown = len(case.slides) > 1 and not any(self.find(slide) for slide in case.slides)
        return case._replace(slides=(whole,)) if unknown and self.find(whole) else case

    def explain(self, name: str, where: Path | str) -> str:
        """Return the reason why a name matches no slide."""
        found = self._candidates(name)
        if found:
            return f"slide {name!r} may be any of {found} in {where}; write the whole name"
        return f"no slide {name!r} in {where}"

    def _candidates(self, name: str) -> list[str]:
        found = self._plain.get(name, [])
        number = name.removesuffix(".0")
        if not found and number.isdigit():  # spreadsheets and pandas write the name 7 as 7.0
            found = self._plain.get(number, [])
        tcga = TCGA_SLIDE.fullmatch(name)
        if found or not tcga:
            return found
        # a name with a UUID may match a file without one, but never a file with another UUID
        return [one for one in self._plain.get(tcga["slide"], []) if slide_name(one) == tcga["slide"]]
