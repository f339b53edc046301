"""Label tables → cases with their slides, labels and splits."""

from e2e_abmilx.cohort.cases import Target, read_cohort
from e2e_abmilx.cohort.entries import Case
from e2e_abmilx.cohort.label_tables import CohortError
from e2e_abmilx.cohort.matching import encode_labels, encode_multi_labels, match_slides
from e2e_abmilx.cohort.spellings import spell_classes
from e2e_abmilx.cohort.split_files import read_splits, write_splits
from e2e_abmilx.cohort.split_plan import SplitPlan
from e2e_abmilx.cohort.splits import (
    SPLITS,
    Stratum,
    assign_folds,
    check_splits,
    group_by_site,
    hold_out_validation,
)
from e2e_abmilx.cohort.time_bins import time_bins, time_edges

__all__ = [
    "SPLITS",
    "Case",
    "CohortError",
    "SplitPlan",
    "Stratum",
    "Target",
    "assign_folds",
    "check_splits",
    "encode_labels",
    "encode_multi_labels",
    "group_by_site",
    "hold_out_validation",
    "match_slides",
    "read_cohort",
    "read_splits",
    "spell_classes",
    "time_bins",
    "time_edges",
    "write_splits",
]
