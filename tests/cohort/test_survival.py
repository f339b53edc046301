import logging
import math
from pathlib import Path

import pytest

from e2e_abmilx.cohort import Case, CohortError, read_cohort
from e2e_abmilx.cohort.survival import DAYS_PER_MONTH


def _read(folder: Path, text: str, **how: object) -> list[Case]:
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return read_cohort(folder / "labels.csv", **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("column", ["OS.time", "os_time", "OS time", "os_survival_days", "OS_DAYS", "survival_days"])
def test_days_at_the_source_become_months_and_are_logged(
    tmp_path: Path, column: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        cases = _read(tmp_path, f"slide,OS,{column}\na,1,358\nb,0,1009\nc,,\n")
    assert [case.time for case in cases[:2]] == [358 / DAYS_PER_MONTH, 1009 / DAYS_PER_MONTH]
    assert math.isnan(cases[2].time)
    assert f"days from {column!r} (days, divided by 30.44)" in caplog.text


@pytest.mark.parametrize(("times", "reason"), [((12.3, 400), "holds 12.3"), ((12, 40), "is at most 40")])
def test_a_column_of_days_that_seems_to_hold_months_is_refused(
    tmp_path: Path, times: tuple[float, float], reason: str
) -> None:
    text = f"slide,OS,OS.time\na,1,{times[0]}\nb,0,{times[1]}\n"
    with pytest.raises(CohortError, match=rf"'OS.time' counts days .* {reason}, .*\{{days: OS.time\}} or \{{time: OS"):
        _read(tmp_path, text)
    assert [case.time for case in _read(tmp_path, text, columns={"time": "OS.time"})] == list(times)
    days = _read(tmp_path, text, columns={"days": "OS.time"})
    assert [case.time for case in days] == [time / DAYS_PER_MONTH for time in times]


def test_implausibly_many_months_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r":3: time '900' is 75 years if it counts months; .*columns: \{days: NAME\}"):
        _read(tmp_path, "slide,time,event\na,358,1\nb,900,0\n")


@pytest.mark.parametrize(
    ("text", "time", "event"),
    [
        ("PATIENT,OS_MONTHS,OS_STATUS\np,12.3,1:DECEASED\n", 12.3, 1),
        ("PATIENT,OS_MONTHS,OS_STATUS\np,40,0:LIVING\n", 40, 0),
        ("case_id,slide_id,os_survival_days,os_censorship\np,s,3044,0\n", 100, 1),
        ("slide,survival_days,survival_months,event\na,300,9.9,1\n", 9.9, 1),  # they agree
    ],
)
def test_tables_of_data_portals(tmp_path: Path, text: str, time: float, event: int) -> None:
    (case,) = _read(tmp_path, text)
    assert (case.time, case.event) == (pytest.approx(time), event)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("survival_days,survival_months", "300,40"),
        ("survival_days,OS.time", "3044,9999"),
        ("time,OS.time", "12,900"),
        ("days,time", "30,30"),
    ],
)
def test_two_times_that_disagree_are_refused(tmp_path: Path, header: str, row: str) -> None:
    text = f"slide,{header},event\na,{row},1\n"
    with pytest.raises(CohortError, match=r":2: time .* disagree; say which is meant with columns"):
        _read(tmp_path, text)
    stated = header.split(",")[0]
    (case,) = _read(tmp_path, text, columns={"days" if "days" in stated else "time": stated})
    assert case.event == 1


NO_SURVIVAL = {
    "times of day": "slide,label,time,status\na,1,10:31,scanned\nb,0,11:02,rescanned\n",
    "days and states": "slide,label,days,status\na,1,12,approved\nb,0,30,pending\n",
    "half of a time": "slide,label,event,time\na,1,1,\nb,0,,\n",
    "codes": "slide,label,time,event\na,1,3,2\nb,0,4,1\n",
    "years": "slide,label,time,event\na,1,2019,1\nb,0,2020,0\n",
    "two times": "slide,label,time,OS.time,event\na,1,3,900,1\nb,0,4,800,0\n",
    "names twice": "slide,label,time,Time,event\na,1,3,4,1\nb,0,4,5,0\n",
}


@pytest.mark.parametrize("text", NO_SURVIVAL.values(), ids=NO_SURVIVAL.keys())
def test_times_are_not_read_if_labels_are_the_target(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        cases = _read(tmp_path, text, target="label")
    assert [(case.label, case.event) for case in cases] == [("1", 0), ("0", 0)]
    assert all(math.isnan(case.time) for case in cases)
    assert "not read" not in caplog.text
    assert "(months)" not in caplog.text
    assert "event" not in caplog.text
    with pytest.raises(CohortError):
        _read(tmp_path, text, target="survival")


def test_by_default_valid_times_are_read_and_labels_suffice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cases = _read(tmp_path, NO_SURVIVAL["times of day"])
    assert [case.label for case in cases] == ["1", "0"]
    assert "times and events are not read, only labels: " in caplog.text
    assert "event 'scanned' is neither" in caplog.text
    (case,) = _read(tmp_path, "slide,label,time,event\na,1,3,1\n")
    assert (case.label, case.time, case.event) == ("1", 3.0, 1)
    with pytest.raises(CohortError, match="event 'scanned' is neither"):
        _read(tmp_path, NO_SURVIVAL["times of day"].replace(",label,", ",other,"))
