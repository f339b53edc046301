"""Times and events of a label table."""

import math
import re
from collections.abc import Iterable, Mapping

from e2e_abmilx.cohort.label_tables import CohortError, Row
from e2e_abmilx.io.tables import is_missing, plain_key

#: Days per month, for tables that count days.
DAYS_PER_MONTH = 30.44

#: Spellings of 0 and 1; pandas writes 0.0 and 1.0 where a column has missing values.
BITS = ("0", "1", "0.0", "1.0")

_LONGEST_MONTHS = 600
_DAYS_AT_SOURCE = ("ostime",)  # TCGA-CDR and the tables of UCSC Xena
_SHORTEST_DAYS = 240  # 20 years, if they are months
_TOLERANCE = 0.05


def read_survival(row: Row, others: Mapping[str, tuple[str, str]]) -> tuple[float, int]:
    """Return the months until the event or the end of observation, and 1 if the event happened, 0 if censored.

    The months are NaN where the row states neither. ``others`` holds the texts and units of further columns of times,
    by the table's names; they must agree.

    Raises:
        CohortError: Only one of the two is given, one is invalid, or another column of times disagrees.
    """
    name, unit = ("days", "days") if "days" in row.cells else ("time", "months")
    text, event = row.cells.get(name, ""), _read_event(row)
    if not text and event is None:
        return math.nan, 0
    if not text or event is None:
        empty, other = ("event", "time") if text else ("time", "event")
        raise CohortError(f"{row.where}: the {empty} is empty and the {other} is not; fill in both or neither")
    months = _read_months(text, unit, row.where)
    for column, (other_text, other_unit) in others.items():
        _refuse_other_time(months, text, column, other_text, other_unit, row.where)
    return months, event


def refuse_doubtful_days(times: Iterable[float], column: str, where: object) -> None:
    """Refuse a column such as ``OS.time``, which counts days at its source, if its values look like months.

    The ``times`` are in months, converted from days.

    Raises:
        CohortError: The days are not whole numbers, or the longest time is too short for days.
    """
    days = [time * DAYS_PER_MONTH for time in times if not math.isnan(time)]
    if plain_key(column) not in _DAYS_AT_SOURCE or not days:
        return
    broken = next((day for day in days if abs(day - round(day)) > 1e-6 * max(1, day)), None)
    if broken is None and max(days) > _SHORTEST_DAYS:
        return
    reason = f"is at most {max(days):g}" if broken is None else f"holds {broken:g}"
    raise CohortError(
        f"{where}: column {column!r} counts days at its source (TCGA-CDR, UCSC Xena), but it {reason}, which looks"
        f" like months; state the unit with columns: {{days: {column}}} or {{time: {column}}} (months)"
    )


def _read_months(text: str, unit: str, where: str) -> float:
    try:
        months = float(text) / (DAYS_PER_MONTH if unit == "days" else 1)
    except ValueError:
        cure = "write a decimal point" if re.fullmatch(r"\d+,\d+", text) else "correct it"
        raise CohortError(f"{where}: time {text!r} is not a number of {unit}; {cure}") from None
    if months < 0 or not math.isfinite(months):
        raise CohortError(f"{where}: time {text!r} is negative or not finite; {unit} must be finite and at least 0")
    if months > _LONGEST_MONTHS:
        raise CohortError(
            f"{where}: time {text!r} is {months / 12:.0f} years if it counts {unit}; correct it, or if the column"
            " counts days say so with columns: {days: NAME}"
        )
    return months


def _refuse_other_time(months: float, text: str, column: str, other: str, unit: str, where: str) -> None:
    """Refuse a second column of times that does not agree with the first."""
    try:
        others = math.nan if is_missing(other) else float(other) / (DAYS_PER_MONTH if unit == "days" else 1)
    except ValueError:
        others = math.nan  # not a duration, for example a time of day
    if not math.isnan(others) and abs(others - months) > max(1, _TOLERANCE * months):
        raise CohortError(
            f"{where}: time {text!r} and {column} {other!r} disagree; say which is meant with columns:"
            f" {{time: NAME}} (months) or {{days: NAME}}"
        )


def _read_event(row: Row) -> int | None:
    """Return 1 if the event happened, 0 if the case was censored, None where the row states neither."""
    events = {}
    for name, happened in (("event", 1.0), ("censorship", 0.0)):
        text = row.cells.get(name, "")
        bit = re.sub(r"(?<=^[01]):.*", "", text)  # cBioPortal writes 1:DECEASED
        if text and bit not in BITS:
            meaning = "1 (happened) nor 0 (censored)" if happened else "1 (censored) nor 0 (happened)"
            raise CohortError(f"{row.where}: {name} {text!r} is neither {meaning}; write one of these")
        if text:
            events[name] = int(float(bit) == happened)
    if len(set(events.values())) > 1:
        raise CohortError(
            f"{row.where}: event {row.cells['event']} and censorship {row.cells['censorship']} contradict each other;"
            " correct one, or state the right one with columns: {event: NAME} or {censorship: NAME}"
        )
    return next(iter(events.values()), None)
