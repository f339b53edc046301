import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
from hand_written import classified, regressed, write_run
from pages import make_page, write_fold
from PIL import Image

from e2e_abmilx.cache.manifest import CachedSlide, update_manifest
from e2e_abmilx.reports.cases import case_table

CASES = [f"case-{number:03d}" for number in range(60)]
EVIL = '<script>alert("&")</script>'


def test_folds_of_a_classification(tmp_path: Path) -> None:
    folder = tmp_path / "cv"
    runs = [
        write_fold(folder / f"fold-{fold}", classified(CASES[fold::3], ["0", "1"], seed=fold), fold=fold)
        for fold in range(3)
    ]
    page = make_page(folder, runs)
    training = [f"{title}: fold-{fold}" for fold in range(3) for title in ("Loss", "Attention sparsity")]
    figures = ["ROC", "Precision and recall", "Confusion", "Reliability", "AUC of each run", *training]
    assert page.texts_in("h3") == figures
    assert sum(text.count("svg+xml") for text in page.attribute("img", "src")) == len(figures)
    extremes = page.texts_in("th").count
    table = case_table(runs)
    wrong, right = set(table.index[:5]), set(table.index[-5:])
    for case in CASES:
        assert extremes(case) == 1 + (case in wrong | right)
    report = pd.read_csv(folder / "report.csv")
    pooled = report[(report["row"] == "pooled") & (report["measure"] == "auc")].iloc[0]
    assert f"{pooled['value']:.3f} ({pooled['low']:.3f} to {pooled['high']:.3f})" in page.texts_in("td")
    assert [text for text in page.texts_in("summary") if text.endswith("fit.yaml")] == [
        str(run.folder / "fit.yaml") for run in runs
    ]
    assert [text for text in page.texts_in("pre") if "seed_everything: 0" in text]


def test_page_is_self_contained_accessible_and_reproducible(tmp_path: Path) -> None:
    run = write_fold(tmp_path / "run", classified(CASES, ["0", "1"], seed=0))
    page = make_page(run.folder, [run])
    assert not re.search(r"https?://|@import|url\(", (run.folder / "report.html").read_text())
    assert not page.attribute("link", "href")
    assert not page.attribute("script", "src")
    assert all(source.startswith("data:image/") for source in page.attribute("img", "src"))
    assert all(page.attribute("img", "alt"))
    assert page.texts_in("th")
    assert len(page.attribute("th", "scope")) == sum(tag == "th" for tag, _ in page.attributes)
    before = (run.folder / "report.html").read_bytes()
    make_page(run.folder, [run])
    assert (run.folder / "report.html").read_bytes() == before


def test_names_from_users_are_escaped(tmp_path: Path) -> None:
    predictions = classified([*CASES, EVIL], ["0", "<b>1</b>"], seed=0)
    run = write_fold(tmp_path / "<i>run", predictions, columns={"label": EVIL})
    page = make_page(run.folder, [run])
    assert EVIL in page.texts_in("th")
    assert [text for text in page.texts_in("pre") if EVIL in text]
    tags = [tag for tag, _ in page.attributes]
    assert "i" not in tags
    assert tags.count("script") == 1
    assert "<b>1</b>" in page.texts_in("td")
    assert page.texts_in("h1") == ["<i>run"]


def test_origin_of_the_cases_and_links_to_heatmaps(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    rows = [CachedSlide(f"slide-{name}", "done", patches="12;4") for name in CASES]
    update_manifest(cache, [*rows, CachedSlide("torn", "failed", "cut & short")])
    labels = pd.DataFrame({"case": CASES, "slide": [f"slide-{name}" for name in CASES], "label": "0"})
    labels.to_csv(tmp_path / "labels.csv", index=False)
    run = write_fold(
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
    page = make_page(run.folder, [run])
    assert page.texts_in("b")[4:] == ["61", "1", "60", "60"]
    assert {"cut & short", "30", "10", "20"} <= set(page.texts_in("td"))
    assert set(map(unquote, page.attribute("a", "href"))) - {
        f"#{name}" for name in page.attribute("section", "id")
    } == {"heatmaps/slide-case-003/overlay.png"}


def test_rows_link_to_the_copy_for_the_browser(tmp_path: Path) -> None:
    run = write_fold(tmp_path / "a run 1%", classified(CASES, ["0", "1"], seed=0))
    page = make_page(run.folder, [run])
    assert not [link for link in page.attribute("a", "href") if "view" in link]
    assert "slide" not in page.texts_in("button")
    (run.folder / "view").mkdir()
    (run.folder / "view/index.html").write_text("")
    (run.folder / "view/cases.json").write_text('{"case-003": 7, "case-004": 0, "another": 1}')
    page = make_page(run.folder, [run])
    links = {link for link in page.attribute("a", "href") if "view" in link}
    assert links == {"view/index.html#case=7", "view/index.html#case=0"}
    page = make_page(tmp_path, [run], "--out", str(tmp_path))
    links = {link for link in page.attribute("a", "href") if "view" in link}
    assert links == {"a%20run%201%25/view/index.html#case=7", "a%20run%201%25/view/index.html#case=0"}


def test_a_comparison_has_its_own_table(tmp_path: Path) -> None:
    ours, theirs = (
        write_run(tmp_path / name, classified(CASES, ["0", "1"], seed=seed))
        for seed, name in enumerate(["ours", "theirs"])
    )
    page = make_page(ours.folder, [ours], "--against", str(theirs.folder))
    assert any("on 60 shared cases" in text for text in page.texts_in("caption"))


def test_a_regression(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", regressed(CASES, seed=0))
    page = make_page(run.folder, [run])
    assert {"R²", "Pearson r", "Spearman ρ", "MAE"} <= {text for _, text in page.texts}
    heads = page.texts_in("th") + page.texts_in("button")
    assert {"value", "predicted value", "absolute error", "correctness"} <= set(heads)
    assert any("absolute error is no smaller" in text for _, text in page.texts)
    worst = (run.predictions["value"] - run.predictions["predicted_value"]).abs().idxmax()
    captions = [text for _, text in page.texts]
    assert captions[captions.index("Worst predictions") :].index(worst) < len(captions)


def test_runs_that_are_not_pooled_are_noted_and_named(tmp_path: Path) -> None:
    seeds = [write_run(tmp_path / f"seed-{seed}", classified(CASES, ["a", "b", "c"], seed=seed)) for seed in range(2)]
    page = make_page(tmp_path, seeds)
    assert "seed-0" in page.texts_in("td")
    assert any("not pooled" in note for note in page.texts_in("li"))
