"""The origin of the cases of a run: the label table and the cache that its settings name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from e2e_abmilx.cache.manifest import CachedSlide, read_manifest
from e2e_abmilx.cohort import Case, CohortError, TargetKind, read_cohort
from e2e_abmilx.runs.read import Run


class Origin(NamedTuple):
    """A label table, the table of its cases' slides, and a cache; paths are relative to the working folder of the run.

    Each of the ``columns`` is our name and the table's name of a column.
    """

    labels: Path | None
    columns: tuple[tuple[str, str | None], ...]
    slide_table: Path | None
    target: TargetKind | None
    cache: Path | None
    classes: tuple[str, ...] = ()

    @classmethod
    def of(cls, run: Run) -> Self:
        """Return the origin that the settings of a run name; a synthetic cohort has one folder for both."""
        data, folder = run.data, run.data.get("folder")
        labels = data.get("labels") or (folder and f"{folder}/labels.csv")
        cache = data.get("cache") or (folder and f"{folder}/cache")
        return cls(
            Path(labels) if labels else None,
            tuple((data.get("columns") or {}).items()),
            Path(data["slide_table"]) if data.get("slide_table") else None,
            data.get("target"),
            Path(cache) if cache else None,
            tuple(map(str, data.get("classes") or ())),
        )

    def read_cases(self) -> dict[str, tuple[str, ...]]:
        """Return the slides of each case; empty if the table can no longer be read."""
        try:
            return {case.id: case.slides for case in self.read_cohort(dict(self.columns))}
        except (CohortError, OSError):
            return {}

    def read_cohort(self, columns: Mapping[str, str | None]) -> list[Case]:
        """Read the label table, with these names of its columns; without a table there are no cases.

        Raises:
            CohortError: The table can no longer be read.
        """
        if self.labels is None:
            return []
        labelled = self.classes if self.target == "multi_label" else ()
        return read_cohort(
            self.labels, columns=columns, label_columns=labelled, slide_table=self.slide_table, target=self.target
        )

    def read_slides(self) -> dict[str, CachedSlide]:
        """Return the manifest row of each slide; empty if the cache is no longer there."""
        return read_manifest(self.cache) if self.cache else {}


def origins_of(runs: Sequence[Run]) -> list[Origin]:
    """Return the distinct origins, in the order of the runs."""
    return list(dict.fromkeys(map(Origin.of, runs)))
