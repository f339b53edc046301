"""The command ``evaluate`` on a cohort that was drawn separately from that of the training."""

import csv
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import tifffile
import torch
from slide_runs import message_of

from e2e_abmilx.main import main
from e2e_abmilx.models import load_model
from e2e_abmilx.models.evaluate import _internal_test
from e2e_abmilx.models.folder import write_model
from e2e_abmilx.reports.stored_measures import measures_json
from e2e_abmilx.runs.read import read_run

LESION = ["--columns", '{"label": "lesion"}']


def evaluate(*words: object) -> None:
    main(["evaluate", "--device", "cpu", *map(str, words)])


def refusal(*words: object) -> str:
    return message_of(["evaluate", "--device", "cpu", *map(str, words)])


def values(folder: Path) -> pd.Series:
    """Return the values of the whole cohorts in ``evaluation.csv``, by measure and cohort."""
    table = pd.read_csv(folder / "evaluation.csv", dtype={"column": str})
    return table[table["column"].isna()].set_index(["measure", "cohort"])["value"].sort_index()


def test_a_survival_model(
    survival_run: Path, external: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # another unit than that of the training table, and cases that are all in the training split
    table = pd.read_csv(external / "labels.csv").assign(split="train")
    table.to_csv(tmp_path / "labels.csv", index=False)
    evaluate(
        "--model", survival_run, "--labels", tmp_path / "labels.csv", "--cache", external / "stores", "--out", tmp_path
    )
    found = values(tmp_path)
    edges = load_model(survival_run, device="cpu").contract.time_edges
    assert len(edges) == 1
    for measure in ("c_index", "brier", "calibration_slope", f"observed_expected_{edges[0]:.6g}"):
        internal, outside, difference = (found[measure, name] for name in ("internal", "external", "difference"))
        assert difference == pytest.approx(outside - internal)
    rows = pd.read_csv(tmp_path / "predictions.csv")
    assert list(rows) == ["case", "time", "event", f"survival_{edges[0]:.6g}", "risk", "threshold", "reaches_threshold"]
    assert len(rows) == 24
    assert rows["event"].tolist() == table["event"].tolist()
    assert rows["time"].to_numpy() == pytest.approx(table["time"].to_numpy(), rel=1e-6)
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert content["cases"] == {"internal": 8, "external": 24}
    assert (tmp_path / "evaluation.html").stat().st_size > 10_000
    # the internal column is the report of the run itself
    stored = measures_json(read_run(survival_run).predictions)
    assert found["c_index", "internal"] == pytest.approx(stored["measures"]["c_index"]["point"])
    assert "Measures, with 95 % intervals" in capsys.readouterr().out


def test_classes_groups_and_the_c_index_by_hand(slide_run: Path, external: Path, tmp_path: Path) -> None:
    table = pd.read_csv(external / "labels.csv").sample(frac=1, random_state=0)  # the first row is of class 1
    table["site"] = ["Leiden", "Utrecht"] * 12
    table.to_csv(tmp_path / "labels.csv", index=False)
    words = ["--model", slide_run, "--labels", tmp_path / "labels.csv", "--cache", external / "stores", *LESION]
    evaluate(*words, "--out", tmp_path, "--groups", '["site", "grade"]')
    rows = pd.read_csv(tmp_path / "predictions.csv", dtype={"label": str})
    assert rows["label"].tolist() == table.sort_values("case")["lesion"].astype(str).tolist()
    positive, negative = (rows.loc[rows["label"] == label, "probability_1"].to_numpy() for label in "10")
    pairs = [(high > low) + (high == low) / 2 for high in positive for low in negative]
    assert values(tmp_path)["auc", "external"] == pytest.approx(sum(pairs) / len(pairs))
    groups = pd.read_csv(tmp_path / "evaluation.csv", dtype={"group": str}).dropna(subset=["column"])
    assert set(map(tuple, groups[["column", "group"]].to_numpy())) == {
        ("site", "Leiden"), ("site", "Utrecht"), ("grade", "0"), ("grade", "1"), ("grade", "2"),
    }  # fmt: skip
    count = groups.set_index(["measure", "column", "group"])["value"]
    for site in ("Leiden", "Utrecht"):
        assert count["cases_1", "site", site] == ((table["site"] == site) & (table["lesion"] == 1)).sum()
    threshold = load_model(slide_run, device="cpu").threshold
    reached = rows["probability_1"] >= threshold
    assert values(tmp_path)["sensitivity", "external"] == pytest.approx(reached[rows["label"] == "1"].mean())
    assert "no column" in refusal(*words, "--out", tmp_path / "no", "--groups", '["hospital"]')
    assert not (tmp_path / "no").exists()


def test_labels_that_the_model_does_not_know(slide_run: Path, external: Path, tmp_path: Path) -> None:
    words = ["--model", slide_run, "--labels", external / "labels.csv", "--cache", external / "stores"]
    message = refusal(*words, "--columns", '{"label": "grade"}', "--out", tmp_path / "out")
    assert "label '2'" in message
    assert "is not one of the classes ['0', '1']" in message
    unlabelled = pd.read_csv(external / "labels.csv").astype({"lesion": object})
    unlabelled.loc[3, "lesion"] = None
    unlabelled.to_csv(tmp_path / "labels.csv", index=False)
    words = ["--model", slide_run, "--labels", tmp_path / "labels.csv", "--cache", external / "stores", *LESION]
    assert "1 of 24 cases have no label, first case-003" in refusal(*words, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_training_cases_are_refused(slide_run: Path, cohort: Path, stores: Path, tmp_path: Path) -> None:
    words = ["--model", slide_run, "--labels", cohort / "labels.csv", "--cache", stores, *LESION]
    message = refusal(*words, "--out", tmp_path / "out")
    assert "16 of 24 cases are among those that the model was trained or validated on" in message
    assert not (tmp_path / "out").exists()


def test_planted_copies_are_refused_and_a_broken_slide_is_reported(
    survival_run: Path, cohort: Path, external: Path, tmp_path: Path
) -> None:
    table = pd.read_csv(cohort / "labels.csv")
    renamed, saved = table.loc[table["split"] == "train", "slide"].iloc[:2]
    slides = tmp_path / "slides"
    slides.mkdir()
    shutil.copy(cohort / f"slides/{renamed}.tiff", slides / "renamed.tiff")
    save_again(cohort / f"slides/{saved}.tiff", slides / "saved.tiff")
    for name in ("slide-004", "slide-005", "slide-006", "slide-007", "slide-008", "slide-009"):
        shutil.copy(external / f"slides/{name}.tiff", slides)
    own = pd.read_csv(external / "labels.csv")[["slide", "time", "event"]].iloc[4:10]
    planted = pd.DataFrame({"slide": ["renamed", "saved"], "time": [20.0, 30.0], "event": [1, 0]})
    pd.concat([own, planted]).to_csv(tmp_path / "labels.csv", index=False)
    (slides / "slide-009.tiff").write_bytes(b"II*\0no slide")
    words = ["--model", survival_run, "--labels", tmp_path / "labels.csv", "--slides", slides, "--workers", "1"]
    message = refusal(*words, "--out", tmp_path / "out")
    assert "2 of 7 cases are among those" in message
    for name in ("renamed", "saved"):
        assert f"{name}: slide {name!r} looks like one of their slides" in message
    assert "1 of 7 cases" in refusal(*words, "--out", tmp_path / "out", "--allow", '["renamed"]')
    assert not (tmp_path / "out/predictions.csv").exists()
    message = refusal(*words, "--out", tmp_path / "out", "--allow", '["renamed", "sav*"]')
    assert message.startswith("error: 1 slides or cases failed:\nslide-009: ")
    found = pd.read_csv(tmp_path / "out/predictions.csv")["case"]
    assert found.tolist() == ["renamed", "saved", *(f"slide-{number:03}" for number in range(4, 9))]
    assert json.loads((tmp_path / "out/evaluation.json").read_text())["cases"]["external"] == 7


def save_again(slide: Path, copy: Path) -> None:
    """Write a slide at another JPEG quality, with the same resolution."""
    with tifffile.TiffFile(slide) as file:
        page = file.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        unit = {"resolution": page.get_resolution(), "resolutionunit": page.tags["ResolutionUnit"].value}
        pixels, description = page.asarray(), page.description
    tifffile.imwrite(
        copy, pixels, tile=(256, 256), compression="jpeg", compressionargs={"level": 60}, photometric="rgb",
        description=description, **unit,
    )  # fmt: skip
    assert copy.read_bytes() != slide.read_bytes()


@pytest.fixture(scope="module")
def other_features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of 20 other cases, in ``features``, and ``labels.csv``."""
    folder = tmp_path_factory.mktemp("other features")
    (folder / "features").mkdir()
    generator = torch.Generator().manual_seed(9)
    rows = ["slide,label"]
    for number in range(20):
        features = torch.randn(5, 8, generator=generator) + 2 * torch.eye(8)[number % 2]
        torch.save(features, folder / f"features/x{number:02}.pt")
        rows.append(f"x{number:02},{number % 2}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


def of_features(folder: Path) -> list[object]:
    return ["--labels", folder / "labels.csv", "--features", folder / "features"]


def test_only_the_best_checkpoint_in_its_run_has_an_internal_test(
    feature_run: Path, second_feature_run: Path, other_features: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "best.ckpt"
    shutil.copy(feature_run / "best.ckpt", moved)
    best, last = feature_run / "best.ckpt", feature_run / "last.ckpt"
    internal = _internal_test([best])
    assert isinstance(internal, pd.DataFrame)
    assert len(internal) == 6
    for paths in ([moved], [last], [best, moved], [best, second_feature_run / "best.ckpt"]):
        assert _internal_test(paths) is None
    evaluate("--model", moved, *of_features(other_features), "--out", tmp_path)
    assert {cohort for _, cohort in values(tmp_path).index} == {"external"}


def test_an_exported_model_keeps_its_internal_test(feature_run: Path, other_features: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    write_model(load_model(feature_run, device="cpu").tasks[0], model)
    assert _internal_test([model]) is None
    (model / "internal_test.json").write_text(json.dumps(measures_json(read_run(feature_run).predictions)))
    for name, source in {"exported": model, "run": feature_run}.items():
        evaluate("--model", source, *of_features(other_features), "--out", tmp_path / name)
    exported, run = values(tmp_path / "exported"), values(tmp_path / "run")
    assert set(exported.index) == set(run.index)
    for cohort in ("internal", "external", "difference"):
        assert exported["auc", cohort] == pytest.approx(run["auc", cohort])


def test_an_ensemble(feature_run: Path, second_feature_run: Path, other_features: Path, tmp_path: Path) -> None:
    both = json.dumps([str(feature_run), str(second_feature_run)])
    evaluate("--model", both, *of_features(other_features), "--out", tmp_path)
    with open(tmp_path / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    assert "std_probability_1" in rows[0]
    reached = [row["reaches_threshold"] == "yes" for row in rows if row["label"] == "1"]
    assert values(tmp_path)["sensitivity", "external"] == pytest.approx(sum(reached) / len(reached))
    assert {cohort for _, cohort in values(tmp_path).index} == {"external"}  # both tested the same cases


def test_folds_of_survival_models_with_other_time_edges(survival_run: Path, external: Path, tmp_path: Path) -> None:
    """Their internal tests are pooled; only the risk is common to all of them."""
    edge = load_model(survival_run, device="cpu").contract.time_edges[0]
    for number, months in enumerate((edge, 60.5)):
        fold = tmp_path / f"cv/fold-{number}"
        shutil.copytree(survival_run, fold)
        tested = pd.read_csv(fold / "predictions.csv").iloc[number * 4 : number * 4 + 4]
        tested = tested.rename(columns={f"survival_{edge:.6g}": f"survival_{months:.6g}"})
        tested.to_csv(fold / "predictions.csv", index=False)
        content = torch.load(fold / "best.ckpt", weights_only=True)
        content["contract"]["time_edges"] = content["time_edges"] = [months]
        torch.save(content, fold / "best.ckpt")
    words = ["--labels", external / "labels.csv", "--cache", external / "stores", "--out", tmp_path]
    evaluate("--model", tmp_path / "cv", *words)
    rows = pd.read_csv(tmp_path / "predictions.csv")
    assert list(rows) == [
        "case", "time", "event", "risk", "std_risk", "min_risk", "max_risk", "threshold", "reaches_threshold",
    ]  # fmt: skip
    found = values(tmp_path)
    # the risk of models with time bins is no log hazard, so it has no calibration slope
    assert {name for name, _ in found.index} == {"c_index"}
    assert {cohort for _, cohort in found.index} == {"internal", "external", "difference"}


def test_wrong_options(feature_run: Path, other_features: Path, tmp_path: Path) -> None:
    words, out = of_features(other_features), ["--out", tmp_path / "out"]
    for given, message in [
        (["--model", feature_run, *words[:2], *out], "give their folder (--features)"),
        (["--model", feature_run, "--labels", tmp_path / "no.csv", *words[2:], *out], "no.csv"),
        (["--model", tmp_path, *words, *out], "holds no model"),
        (["--model", feature_run, *words, *out, "--workers", 0], "workers is 0"),
    ]:
        assert message in refusal(*given)
    assert not (tmp_path / "out").exists()
