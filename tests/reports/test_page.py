import base64
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from hand_written import classified, survived, write_run
from PIL import Image

from e2e_abmilx.cache.manifest import CachedSlide, update_manifest
from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.estimators import Estimator
from e2e_abmilx.main import main
from e2e_abmilx.reports.cases import case_table
from e2e_abmilx.reports.measures import C_INDEX
from e2e_abmilx.reports.records import read_record
from e2e_abmilx.runs.read import Run

CASES = [f"case-{number:03d}" for number in range(60)]
EVIL = '<script>alert("&")</script>'
_VOID = {"meta", "img", "br"}
_METRICS = pd.DataFrame(
    {
        "epoch": [0, 0, 1, 1],
        "step": [3, 3, 7, 7],
        "train/loss_epoch": [0.9, None, 0.5, None],
        "val/loss": [None, 0.8, None, 0.6],
        "train/fraction_holding_95": [0.9, None, 0.7, None],
        "val/fraction_holding_95": [None, 0.9, None, 0.8],
        "test/threshold": [None, None, None, 0.4],
    }
)


_RECORD = """\
versions: {e2e_abmilx: 0.1.0, torch: 2.9.1, cuda: null}
hardware: {cpu: A <fast> CPU, cores: 16, memory_gib: 125.7, gpus: [H100, H100], processes: 2}
precision: bf16-mixed
seed: 0
parameters: {encoder: 2782784, head: 62273}
fit: {started: 2026-03-01 12:30:00+00:00, ended: 2026-03-01 14:35:07+00:00, seconds: 7507.4, times_resumed: 1,
  epochs: 2, seconds_per_epoch: 3753.7}
best: {epoch: 1, monitor: val/loss, value: 0.6}
test: {ended: 2026-03-01 14:36:00+00:00, seconds: 12.34}
"""


class Page(HTMLParser):
    """What a browser reads; every element that is opened must be closed in its turn."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def all(self, tag: str, name: str) -> list[str]:
        return [attributes[name] for one, attributes in self.attributes if one == tag and name in attributes]

    def said(self, tag: str) -> list[str]:
        return [text for one, text in self.texts if one == tag]


def _fold(folder: Path, predictions: pd.DataFrame, **settings: object) -> Run:
    run = write_run(folder, predictions, data=dict(settings))
    _METRICS.to_csv(folder / "metrics.csv", index=False)
    return run


def _page(folder: Path, runs: Sequence[Run], *options: str) -> Page:
    main(["report", "--runs", f"[{','.join(str(run.folder) for run in runs)}]", "--html", "true", *options])
    return Page(folder / "report.html")


def test_folds_of_a_classification(tmp_path: Path) -> None:
    folder = tmp_path / "cv"
    runs = [
        _fold(folder / f"fold-{fold}", classified(CASES[fold::3], ["0", "1"], seed=fold), fold=fold)
        for fold in range(3)
    ]
    page = _page(folder, runs)
    training = [f"{title}: fold-{fold}" for fold in range(3) for title in ("Loss", "Attention sparsity")]
    figures = ["ROC", "Precision and recall", "Confusion", "Reliability", "AUC of each run", *training]
    assert page.said("h3") == figures
    assert sum(text.count("svg+xml") for text in page.all("img", "src")) == len(figures)
    extremes = page.said("th").count
    table = case_table(runs)
    wrong, right = set(table.index[:5]), set(table.index[-5:])
    for case in CASES:
        assert extremes(case) == 1 + (case in wrong | right)
    report = pd.read_csv(folder / "report.csv")
    pooled = report[(report["row"] == "pooled") & (report["measure"] == "auc")].iloc[0]
    assert f"{pooled['value']:.3f} ({pooled['low']:.3f} to {pooled['high']:.3f})" in page.said("td")
    assert [text for text in page.said("summary") if text.endswith("fit.yaml")] == [
        str(run.folder / "fit.yaml") for run in runs
    ]
    assert [text for text in page.said("pre") if "seed_everything: 0" in text]


def test_nothing_is_loaded_and_heads_have_scopes(tmp_path: Path) -> None:
    run = _fold(tmp_path / "run", classified(CASES, ["0", "1"], seed=0))
    page = _page(run.folder, [run])
    assert not re.search(r"https?://|@import|url\(", (run.folder / "report.html").read_text())
    assert not page.all("link", "href")
    assert not page.all("script", "src")
    assert all(source.startswith("data:image/") for source in page.all("img", "src"))
    assert all(page.all("img", "alt"))
    assert page.said("th")
    assert len(page.all("th", "scope")) == sum(tag == "th" for tag, _ in page.attributes)
    before = (run.folder / "report.html").read_bytes()
    _page(run.folder, [run])
    assert (run.folder / "report.html").read_bytes() == before


def test_names_of_users_are_text(tmp_path: Path) -> None:
    predictions = classified([*CASES, EVIL], ["0", "<b>1</b>"], seed=0)
    run = _fold(tmp_path / "<i>run", predictions, columns={"label": EVIL})
    page = _page(run.folder, [run])
    assert EVIL in page.said("th")
    assert [text for text in page.said("pre") if EVIL in text]
    tags = [tag for tag, _ in page.attributes]
    assert "i" not in tags
    assert tags.count("script") == 1
    assert "<b>1</b>" in page.said("td")
    assert page.said("h1") == ["<i>run"]


def test_where_cases_come_from(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    rows = [CachedSlide(f"slide-{name}", "done", patches="12;4") for name in CASES]
    update_manifest(cache, [*rows, CachedSlide("torn", "failed", "cut & short")])
    labels = pd.DataFrame({"case": CASES, "slide": [f"slide-{name}" for name in CASES], "label": "0"})
    labels.to_csv(tmp_path / "labels.csv", index=False)
    run = _fold(
        tmp_path / "run",
        classified(CASES[:20], ["0", "1"], seed=0),
        cache=str(cache),
        labels=str(tmp_path / "labels.csv"),
    )
    splits = pd.DataFrame({"case": CASES, "split": ["test"] * 20 + ["train"] * 30 + ["val"] * 10})
    splits.to_csv(run.folder / "splits.csv", index=False)
    overlay = run.folder / "heatmaps" / "slide-case-003" / "overlay.png"
    overlay.parent.mkdir(parents=True)
    Image.fromarray(np.zeros((1000, 2000, 4), np.uint8)).save(overlay)
    page = _page(run.folder, [run])
    assert page.said("b")[4:] == ["61", "1", "60", "60"]
    assert {"cut & short", "30", "10", "20"} <= set(page.said("td"))
    assert set(map(unquote, page.all("a", "href"))) - {f"#{name}" for name in page.all("section", "id")} == {
        "heatmaps/slide-case-003/overlay.png"
    }


def _facts(page: Page) -> dict[str, list[str]]:
    """The cells of each row whose first cell names a fact."""
    rows: dict[str, list[str]] = {}
    for tag, text in page.texts:
        if tag == "th":
            cells = rows.setdefault(text, [])
        elif tag == "td":
            cells.append(text)
    return rows


def test_what_runs_recorded_is_told(tmp_path: Path) -> None:
    runs = [
        _fold(tmp_path / f"fold-{fold}", classified(CASES[fold::3], ["0", "1"], seed=fold), fold=fold)
        for fold in range(3)
    ]
    for run in runs[:2]:  # the third is older than records
        (run.folder / "run.yaml").write_text(_RECORD)
    page = _page(tmp_path, runs)
    facts = _facts(page)
    assert facts["fold"] == ["0", "1", "2"]
    assert facts["precision"] == ["bf16-mixed", "bf16-mixed", "–"]
    assert facts["best epoch, from 0 on"] == ["1", "1", "–"]
    assert facts["chosen by"] == ["val/loss 0.6", "val/loss 0.6", "–"]
    assert facts["parameters of the encoder"] == ["2,782,784", "2,782,784", "–"]
    assert facts["started (UTC)"] == ["2026-03-01 12:30", "2026-03-01 12:30", "–"]
    assert facts["fit"] == ["2 h 05 min", "2 h 05 min", "–"]
    assert facts["an epoch of it"] == ["1 h 02 min", "1 h 02 min", "–"]
    assert facts["test"] == ["12.3 s", "12.3 s", "–"]
    assert facts["times resumed"] == ["1", "1", "–"]
    assert facts["GPUs"] == ["2 × H100", "–"]  # runs on the same machine share a column
    assert facts["CPU"] == ["A <fast> CPU", "–"]
    assert facts["memory, GiB"] == ["126", "–"]
    assert facts["torch"] == ["2.9.1", "–"]
    assert "cuda" not in facts
    assert page.said("th").count("fold-0, fold-1") == 2


def test_older_runs_have_dashes(tmp_path: Path) -> None:
    run = _fold(tmp_path / "run", classified(CASES, ["0", "1"], seed=0))
    facts = _facts(_page(run.folder, [run]))
    for name in ("precision", "best epoch, from 0 on", "fit", "test", "GPUs", "CPU", "e2e_abmilx"):
        assert facts[name] == ["–"]
    assert facts["epochs"] == ["2"]


def test_a_run_that_has_not_ended_has_no_duration(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        re.sub("ended: [^,]+, seconds: 7507.4", "ended: null, seconds: 40.0", _RECORD)
    )
    record = read_record(tmp_path)
    assert np.isnan(record.fit_seconds)
    assert (record.cores, record.gpus) == (16, ("H100", "H100"))


@pytest.mark.parametrize(("text", "message"), [("a: [", "is no YAML"), ("", "holds no record")])
def test_a_damaged_record_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(InputError, match=f"(?s)run.yaml {message}.*restore or remove it"):
        read_record(tmp_path)


def test_survival_by_risk_group(tmp_path: Path) -> None:
    run = _fold(tmp_path / "run", survived(CASES, seed=0))
    page = _page(run.folder, [run])
    assert page.said("h3") == ["Kaplan–Meier", "Loss", "Attention sparsity"]
    images = [source.partition(",")[2] for source in page.all("img", "src")]
    assert b"numbers at risk" in base64.b64decode(images[0])  # matplotlib names each text in a comment


def test_classes_and_seeds_have_figures_of_their_own(tmp_path: Path) -> None:
    seeds = [
        write_run(tmp_path / f"seed-{seed}", classified(CASES, ["a", "b", "c"], seed=seed))
        for seed in range(2)
    ]
    page = _page(tmp_path, seeds)
    titles = page.said("h3")
    for title in ("ROC", "Precision and recall", "Confusion"):
        assert [one for one in titles if one.startswith(title)] == [f"{title}: seed-0", f"{title}: seed-1"]
    assert "seed-0" in page.said("td")
    assert any("not pooled" in note for note in page.said("li"))


def test_comparison(tmp_path: Path) -> None:
    ours, theirs = (
        write_run(tmp_path / name, classified(CASES, ["0", "1"], seed=seed))
        for seed, name in enumerate(["ours", "theirs"])
    )
    page = _page(ours.folder, [ours], "--against", str(theirs.folder))
    assert any("on 60 shared cases" in text for text in page.said("caption"))
    assert page.said("h3") == [
        "ROC",
        "Precision and recall",
        "Confusion: first",
        "Confusion: second",
        "Reliability",
    ]


def test_a_class_without_cases_is_not_drawn(tmp_path: Path) -> None:
    table = classified(CASES, ["0", "1"], seed=0)
    run = write_run(tmp_path / "run", table[table["label"] == "0"])
    assert _page(run.folder, [run]).said("h3") == ["Confusion", "Reliability"]


def test_rightness_of_survival_is_each_cases_share_of_the_c_index(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", survived(CASES, seed=0))
    found = case_table([run])["rightness"]
    assert found.is_monotonic_increasing
    predictions = run.predictions
    for case in CASES[:10]:
        right = pairs = 0
        for other in set(CASES) - {case}:
            pair: Estimator = C_INDEX.estimator(predictions.loc[[case, other]])
            share = pair(np.ones(2, np.int64))
            right, pairs = right + (0 if np.isnan(share) else share), pairs + (not np.isnan(share))
        assert found[case] == pytest.approx(right / pairs)
