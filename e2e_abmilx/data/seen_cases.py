"""The cases that a model has seen in training, known by hashes of their names and marks of their slides."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from e2e_abmilx.cohort import Case
from e2e_abmilx.cohort.patients import barcodes_in
from e2e_abmilx.cohort.spellings import plain_id
from e2e_abmilx.slides.duplicates import SAME_SLIDE, find_same, hash_distance

#: The mark of each slide, by its name; None for slides that show too little to be known again.
#:
#: A mark stays the same if the slide is renamed: it is the perceptual hash of the thumbnail, or a digest of the features.
Marks = Mapping[str, str | None]

_NAME_DIGITS = 16  # of the hash of a name: 64 bits
_LOOK_DIGITS = 64  # of the hash of a thumbnail; digests of features are shorter


@dataclass(frozen=True)
class SeenCases:
    """The training and validation cases of a model, by hashes, so that a published model does not list its patients.

    Short or systematic names can still be found by trying them.

    Attributes:
        cases: Number of cases.
        names: Hash of the name of each case, and of each patient whose barcode is part of a name.
        slides: The mark of each slide, by the hash of its name.
    """

    cases: int
    names: tuple[str, ...]
    slides: Marks

    @classmethod
    def of(cls, cases: Collection[Case], marks: Marks, earlier: Self | None = None) -> Self:
        """Hash the names of cases; ``marks`` are those of their slides, ``earlier`` cases of an earlier training."""
        names = {_hash(name) for case in cases for name in (case.id, *_barcodes(case))}
        slides = {_hash(slide): marks.get(slide) for case in cases for slide in case.slides}
        if earlier is None:
            return cls(len(cases), tuple(sorted(names)), dict(sorted(slides.items())))
        number = earlier.cases + sum(_hash(case.id) not in earlier.names for case in cases)
        return cls(number, tuple(sorted(names.union(earlier.names))), _join_marks(earlier.slides, slides))

    @property
    def has_marks(self) -> bool:
        """Whether renamed copies of at least some slides can be recognised."""
        return any(self.slides.values())

    def include(self, other: Self) -> bool:
        """Return whether the names of all other cases, and of their slides, are among these."""
        return set(other.names) <= set(self.names) and other.slides.keys() <= self.slides.keys()

    def find_names(self, cases: Iterable[Case], marks_of: Callable[[Sequence[Case]], Marks]) -> dict[str, str]:
        """Return the cases that are named like a seen case, slide or patient, each with the reason.

        A case is left out if all its slides are named like seen slides and look different: cohorts often number their
        slides alike.

        Args:
            cases: The cases.
            marks_of: Returns the marks of the slides of some cases.
        """
        names = set(self.names)
        found = {}
        for case in cases:
            patient = next((barcode for barcode in _barcodes(case) if _hash(barcode) in names), None)
            slide = next((slide for slide in case.slides if _hash(slide) in self.slides), None)
            if patient is not None:
                found[case.id] = f"patient {patient} is one of them"
            elif (slide is not None or _hash(case.id) in names) and not self._only_share_names(case, marks_of):
                noun = f"slide {slide!r}" if slide is not None else f"case {case.id!r}"
                found[case.id] = f"{noun} is named like one of theirs"
        return found

    def find_copies(self, cases: Iterable[Case], marks: Marks) -> dict[str, str]:
        """Return the cases with a slide that is a copy of a seen one, each with the reason."""
        known = {mark for mark in self.slides.values() if mark}
        looks = {slide: mark for slide, mark in marks.items() if mark and len(mark) == _LOOK_DIGITS}
        same = {
            slide: f"slide {slide!r} looks like one of their slides ({distance:.0%} of its thumbnail's hash differ)"
            for slide, distance in find_same(looks, {mark for mark in known if len(mark) == _LOOK_DIGITS}).items()
        }
        same |= {
            slide: f"slide {slide!r} has the features of one of their slides"
            for slide, mark in marks.items()
            if slide not in looks and mark in known
        }
        return {case.id: same[slide] for case in cases for slide in case.slides if slide in same}

    def _only_share_names(self, case: Case, marks_of: Callable[[Sequence[Case]], Marks]) -> bool:
        """Return whether each slide of a case looks different from the seen slide of its name."""
        if not all(self.slides.get(_hash(slide)) for slide in case.slides):
            return False
        marks = marks_of([case])
        return all(_differs(self.slides[_hash(slide)], marks.get(slide)) for slide in case.slides)

    @classmethod
    def from_json(cls, content: Mapping[str, Any] | None) -> Self | None:
        """Return seen cases from their attributes."""
        return None if content is None else cls(content["cases"], tuple(content["names"]), content["slides"])

    def as_json(self) -> dict[str, Any]:
        """Return the attributes as a JSON object."""
        return {"cases": self.cases, "names": list(self.names), "slides": dict(self.slides)}


def _join_marks(one: Marks, other: Marks) -> Marks:
    """Return all slides; of two slides of one name both marks are kept, but not which is whose, so the name decides."""
    joined = {**one, **other}
    for name in one.keys() & other.keys():
        if one[name] != other[name]:
            joined |= {name: None, **{_hash(mark): mark for mark in (one[name], other[name]) if mark}}
    return dict(sorted(joined.items()))


def _barcodes(case: Case) -> list[str]:
    return [barcode for text in (case.id, *case.slides) for barcode in barcodes_in(text)]


def _hash(name: str) -> str:
    return hashlib.sha256(plain_id(name).encode()).hexdigest()[:_NAME_DIGITS]


def _differs(one: str | None, other: str | None) -> bool:
    """Return whether two thumbnails are known to show different slides; features may be extracted again."""
    if not one or not other or len(one) != _LOOK_DIGITS or len(other) != _LOOK_DIGITS:
        return False
    return hash_distance(one, other) > SAME_SLIDE
