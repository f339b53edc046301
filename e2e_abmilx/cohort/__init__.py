"""The cohort: label tables are read into cases, and each case gets its slides, its target and its split.

- ``label_tables``: find the known columns of a table
- ``spellings``: spellings of splits, labels and ids, and names that a spreadsheet has damaged
- ``survival``: times and events
- ``values``: numbers of a regression cohort, their scale and their strata
- ``entries``: one row of a table, read by itself; the :class:`Case`
- ``folds``: fold numbers that a table states itself
- ``patients``: cases of one patient form one group
- ``cases``: tables are read into cases
- ``splits``: training, validation and test, from the table's folds or from new ones
- ``split_files``: the same, from files
- ``time_bins``: time bins of a survival model
- ``targets``: labels, multi-labels, times and values become numbers
- ``matching``: cases matched with the slides that exist
- ``group_columns``: further columns that group cases, such as site or scanner
- ``cohort_plan``: all settings of a cohort, and the steps from the label table to numbered cases
"""

from e2e_abmilx.cohort.cases import TargetKind, read_cohort
from e2e_abmilx.cohort.cohort_plan import CohortPlan
from e2e_abmilx.cohort.entries import Case
from e2e_abmilx.cohort.label_tables import CohortError
from e2e_abmilx.cohort.matching import match_slides
from e2e_abmilx.cohort.spellings import spell_classes
from e2e_abmilx.cohort.split_files import read_splits, write_splits
from e2e_abmilx.cohort.splits import SPLITS, Stratum, assign_folds, check_splits, group_by_site, hold_out_validation
from e2e_abmilx.cohort.targets import encode_labels, encode_multi_labels, encode_values
from e2e_abmilx.cohort.time_bins import time_bins, time_edges
from e2e_abmilx.cohort.values import ValueScale, value_scale

__all__ = [
    "SPLITS",
    "Case",
    "CohortError",
    "CohortPlan",
    "Stratum",
    "TargetKind",
    "ValueScale",
    "assign_folds",
    "check_splits",
    "encode_labels",
    "encode_multi_labels",
    "encode_values",
    "group_by_site",
    "hold_out_validation",
    "match_slides",
    "read_cohort",
    "read_splits",
    "spell_classes",
    "time_bins",
    "time_edges",
    "value_scale",
    "write_splits",
]
