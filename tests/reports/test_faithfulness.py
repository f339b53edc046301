"""The section of the report, from tables with maps that are faithful, random and reversed."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hand_written import classified, regressed, write_run
from pages import make_page

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.bootstrap import Estimate
from e2e_abmilx.evaluation.faithfulness import DELETED, INSERTED, Curves
from e2e_abmilx.reports.faithfulness import (
    MapAreas,
    describe_map,
    describe_truth,
    faithfulness_sections,
    measure_maps,
    read_faithfulness,
)
from e2e_abmilx.reports.report import make_report
from e2e_abmilx.runs.read import Run

CASES = [f"case-{number:02d}" for number in range(20)]


def _table(skills: dict[str, float], *, score: str = "probability_1", seed: int = 0) -> pd.DataFrame:
    """Return a table of maps: a skill of 1 is faithful, 0 random and -1 reversed; every other case has a truth."""
    rng = np.random.default_rng(seed)
    rows = []
    for number, case in enumerate(CASES):
        for name, skill in {**skills, "random": 0.0}.items():
            removed, added = np.array(DELETED) / 100, np.array(INSERTED) / 100
            noise = 0 if name == "random" else rng.normal(0, 0.02)
            curves = Curves(
                0.8 - (0.5 + 0.2 * skill) * removed + noise, 0.2 + 0.6 * added ** (0.5 - 0.2 * skill) + noise
            )
            auc = 0.5 + 0.3 * skill if number % 2 else math.nan
            areas = [curves.deletion_area, curves.insertion_area, auc]
            rows.append([case, name, score, 90, *areas, *curves.deletion, *curves.insertion])
    points = [*(f"deletion_{percent}" for percent in DELETED), *(f"insertion_{percent}" for percent in INSERTED)]
    return pd.DataFrame(rows, columns=["case", "map", "score", "patches", "deletion", "insertion", "auc", *points])


def _run(folder: Path, table: pd.DataFrame | None, *, seed: int = 0) -> Run:
    run = write_run(folder, classified(CASES, ["0", "1"], seed=seed))
    if table is not None:
        table.to_csv(folder / "faithfulness.csv", index=False)
    return run


def test_areas_and_their_differences_to_the_random_map(tmp_path: Path) -> None:
    table = _table({"attention": 1.0, "contribution": -0.5})
    found = measure_maps(read_faithfulness(_run(tmp_path / "run", table)))
    assert list(found) == ["attention", "contribution", "random"]
    mean = table.groupby("map")[["deletion", "insertion", "auc"]].mean()
    for name, areas in found.items():
        assert [areas.deletion.point, areas.insertion.point, areas.auc.point] == pytest.approx(mean.loc[name].tolist())
        assert areas.deletion_gain.point == pytest.approx(mean.loc["random", "deletion"] - mean.loc[name, "deletion"])
        assert areas.insertion_gain.point == pytest.approx(
            mean.loc[name, "insertion"] - mean.loc["random", "insertion"]
        )
        assert areas.cases_with_truth == 10
    assert found["attention"].deletion_gain.low > 0
    assert found["contribution"].insertion_gain.high < 0


def test_faithful_random_and_reversed_maps_are_told_apart(tmp_path: Path) -> None:
    words = {
        1.0: "better than a random order. Removing",
        0.0: "no better than a random order",
        -1.0: "worse than a random",
    }
    for skill, expected in words.items():
        report = make_report([_run(tmp_path / f"run{skill}", _table({"attention": skill}, seed=1))])
        ((_, (sentence,), drawings),) = faithfulness_sections(report)
        assert sentence.startswith(f"Attention: {expected}")
        assert ("true patches rank" in sentence) == (skill != 0) or "no higher" in sentence
        assert [drawing.title for drawing in drawings] == ["Deletion", "Insertion"]


def _areas(deletion: tuple[float, float], insertion: tuple[float, float]) -> MapAreas:
    zero = Estimate(0, 0, 0, 0, 0, 9, 0)
    gains = [zero._replace(low=low, high=high) for low, high in (deletion, insertion)]
    return MapAreas(zero, zero, *gains, zero, 0)


def test_sentences() -> None:
    def said(*gains: tuple[float, float]) -> str:
        return describe_map("contribution", _areas(*gains), "risk").removeprefix("Contributions: ")

    assert said((0.1, 0.2), (0.1, 0.2)).startswith("better than a random order. Removing")
    assert said((0.1, 0.2), (-0.1, 0.2)) == "better than a random order in deletion, and not in insertion."
    assert said((0.1, 0.2), (-0.2, -0.1)).startswith("worse than a random order in insertion; it does not show")
    assert said((-0.1, 0.2), (0.0, 0.2)).startswith(
        "no better than a random order; do not read it as an explanation of"
    )
    assert said((math.nan, math.nan), (0.1, 0.2)) == "too few cases to tell a map from a random order."


@pytest.mark.parametrize(
    ("name", "low", "high", "words"),
    [
        ("attention", 0.6, 0.8, "By attention, true patches rank above others (AUC 0.700)."),
        ("attention", 0.4, 0.8, "By attention, true patches rank no higher than others (AUC 0.700)."),
        ("attention", 0.1, 0.4, "By attention, true patches rank below others (AUC 0.700)."),
        (
            "contribution",
            0.1,
            0.4,
            "By contributions, true patches rank below others (AUC 0.700): a patch with attention",
        ),
        ("contribution", math.nan, math.nan, "By contributions: too few cases"),
    ],
)
def test_sentences_on_truth(name: str, low: float, high: float, words: str) -> None:
    assert describe_truth(name, Estimate(0.7, 0.7, 0.1, low, high, 9, 0)).startswith(words)


def test_the_page_has_a_section_only_where_maps_were_measured(tmp_path: Path) -> None:
    without = _run(tmp_path / "without", None)
    page = make_page(without.folder, [without])
    assert "faithfulness" not in page.attribute("section", "id")
    assert "#faithfulness" not in page.attribute("a", "href")
    run = _run(tmp_path / "run", _table({"attention": 1.0, "contribution": 0.0}))
    page = make_page(run.folder, [run])
    assert "faithfulness" in page.attribute("section", "id")
    assert "#faithfulness" in page.attribute("a", "href")
    assert {"Deletion", "Insertion"} <= set(page.texts_in("h3"))
    captions = page.texts_in("caption")
    assert "Areas under the curves of 20 cases, with 95 % intervals; true patches are known of 10" in captions
    assert any(text.startswith("Attention: better than a random order.") for text in page.texts_in("p"))
    assert any(text.startswith("True patches are those of which a mask") for text in page.texts_in("p"))
    cells = page.texts_in("td")
    measured = measure_maps(read_faithfulness(run))["attention"].deletion_gain
    assert f"{measured.point:.3f} ({measured.low:.3f} to {measured.high:.3f})" in cells


def test_a_comparison_shows_both_and_folds_are_taken_together(tmp_path: Path) -> None:
    ours, theirs = (_run(tmp_path / name, _table({"attention": skill}), seed=seed)
                    for seed, (name, skill) in enumerate({"ours": 1.0, "theirs": -1.0}.items()))  # fmt: skip
    sections = faithfulness_sections(make_report([ours], [theirs]))
    assert [section.table.caption.partition(":")[0] for section in sections] == ["first", "second"]
    assert ["better" in section.sentences[0] for section in sections] == [True, False]
    (both,) = faithfulness_sections(make_report([ours, theirs]))  # two runs with the same cases
    assert "of 20 cases" in both.table.caption
    one, other = (measure_maps(read_faithfulness(run))["attention"].deletion.point for run in (ours, theirs))
    assert both.table.rows[0][1].startswith(f"{(one + other) / 2:.3f} (")  # type: ignore[attr-defined]


def test_the_watched_score_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", regressed(CASES, seed=0))
    table = _table({"attention": 1.0}, score="predicted_value").assign(auc=math.nan)
    table.to_csv(run.folder / "faithfulness.csv", index=False)
    (section,) = faithfulness_sections(make_report([run]))
    assert "lowers the predicted value more" in section.sentences[0]
    assert "AUC of true patches" not in section.table.head
    assert section.drawings[0].figure.axes[0].get_ylabel() == "predicted value"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns="insertion_5"), "has no column insertion_5; test again"),
        (lambda table: table[table["case"] != CASES[0]], r"has 19 rows of the map attention, and predictions\.csv 20"),
        (lambda table: pd.concat([table, table]), r"has 40 rows of the map attention"),
        (lambda table: table.assign(deletion=math.nan), "has no areas of case case-00"),
    ],
)
def test_tables_that_do_not_belong_to_the_run_are_refused(change, message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = _run(tmp_path / "run", change(_table({"attention": 1.0})))
    with pytest.raises(InputError, match=message):
        read_faithfulness(run)
