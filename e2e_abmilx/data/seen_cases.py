"""The cases that a model has seen in training, known by hashes."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from e2e_abmilx.cohort import Case
from e2e_abmilx.cohort.patients import barcodes_in
from e2e_abmilx.cohort.spellings import plain_id

_DIGITS = 16  # of each hash: 64 bits


@dataclass(frozen=True)
class SeenCases:
    """The training and validation cases of a model, by hashes, so that a published model does not list its patients.

    Short or systematic names can still be found by trying them.

    Attributes:
        cases: Number of cases.
        names: Hash of each name of a case, of a slide and of a patient whose barcode is part of a name.
        marks: A mark of each slide that stays the same if the slide is renamed: the perceptual hash of its thumbnail,
            or a digest of its features.
    """

    cases: int
    names: tuple[str, ...]
    marks: tuple[str, ...]

    @classmethod
    def of(cls, cases: Collection[Case], marks: Iterable[str]) -> Self:
        """Hash the names of cases; ``marks`` are those of their slides."""
        names = {_hash(name) for case in cases for name in _names_of(case)}
        return cls(len(cases), tuple(sorted(names)), tuple(sorted(set(marks))))

    def find(self, cases: Iterable[Case]) -> dict[str, str]:
        """Return the cases that have the name of a seen case, slide or patient, each with that name."""
        known = set(self.names)
        found = {}
        for case in cases:
            name = next((name for name in _names_of(case) if _hash(name) in known), None)
            if name is not None:
                found[case.id] = name
        return found

    @classmethod
    def from_json(cls, content: Mapping[str, object] | None) -> Self | None:
        """Return seen cases from their attributes."""
        if content is None:
            return None
        lists = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
        return cls(**lists)  # type: ignore[arg-type]


def _names_of(case: Case) -> list[str]:
    texts = [case.id, *case.slides]
    return [*texts, *(barcode for text in texts for barcode in barcodes_in(text))]


def _hash(name: str) -> str:
    return hashlib.sha256(plain_id(name).encode()).hexdigest()[:_DIGITS]
