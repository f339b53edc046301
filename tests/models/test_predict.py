"""The command ``predict --model`` from end to end."""

import csv
import json
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from local_bucket import FaultProxy
from PIL import Image
from slide_runs import message_of

from e2e_abmilx.cache import cache_slides
from e2e_abmilx.cache.push import push
from e2e_abmilx.cohort import Case
from e2e_abmilx.errors import InputError
from e2e_abmilx.heatmaps import read_case_map
from e2e_abmilx.main import main
from e2e_abmilx.models import CasePrediction, load_model
from e2e_abmilx.models.inputs import bags_of
from e2e_abmilx.models.predict import PARTIAL, write_predictions
from e2e_abmilx.store.files import forget_objects


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def predict(*words: object) -> None:
    main(["predict", "--device", "cpu", *map(str, words)])


def refusal(*words: object) -> str:
    return message_of(["predict", "--device", "cpu", *map(str, words)])


def test_slides_with_a_broken_one(slide_run: Path, cohort: Path, tmp_path: Path) -> None:
    slides, out = tmp_path / "slides", tmp_path / "out"
    slides.mkdir()
    tested = {row["case"]: row for row in rows_of(slide_run / "predictions.csv")}
    names = [case.replace("case", "slide") for case in sorted(tested)[:2]]
    for name in names:
        shutil.copy(cohort / f"slides/{name}.tiff", slides)
    (slides / "broken.tiff").write_bytes(b"II*\0no slide")
    message = refusal("--model", slide_run, "--slides", slides, "--out", out, "--workers", 1)
    assert message.startswith("error: 1 slides or cases failed:\nbroken: ")
    rows = rows_of(out / "predictions.csv")
    assert [row["case"] for row in rows] == names
    for row in rows:
        own = tested[row["case"].replace("slide", "case")]
        assert {name: row[name] for name in ("probability_0", "probability_1")} == {
            name: own[name] for name in ("probability_0", "probability_1")
        }
        assert row["label"] == ""
    assert sorted(path.name for path in (out / "cache").glob("*.zarr")) == [f"{name}.zarr" for name in names]
    assert not (out / PARTIAL).exists()


def test_a_label_table_decides_what_a_case_is(slide_run: Path, stores: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("slide,case,lesion\nslide-003,b,0\nslide-001,a,1\nslide-002,a,1\nslide-004,c,\n")
    columns = ["--columns", json.dumps({"label": "lesion"})]
    predict("--model", slide_run / "best.ckpt", "--cache", stores, "--labels", table, *columns, "--out", tmp_path)
    rows = rows_of(tmp_path / "predictions.csv")
    assert [(row["case"], row["label"]) for row in rows] == [("a", "1"), ("b", "0"), ("c", "")]
    model = load_model(slide_run, device="cpu")
    joined = model.predict([stores / "slide-001.zarr", stores / "slide-002.zarr"])
    assert rows[0]["probability_1"] == f"{joined.scores['probability_1']:.9g}"
    assert rows[0]["threshold"] == f"{model.threshold:.9g}"
    assert rows[0]["reaches_threshold"] == ("yes" if joined.reaches_threshold else "no")
    assert rows[0]["predicted"] == joined.label


@pytest.mark.parametrize("kind", ["attention", "contribution"])
def test_heatmaps(kind: str, slide_run: Path, stores: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    slides = ["slide-001", "slide-002"] if kind == "attention" else ["slide-001"]
    table.write_text("slide,case\n" + "".join(f"{slide},one\n" for slide in slides))
    predict("--model", slide_run, "--cache", stores, "--labels", table, "--out", tmp_path, "--heatmaps", kind)
    assert sorted(path.name for path in (tmp_path / "heatmaps").iterdir()) == slides
    for slide in slides:
        assert (tmp_path / f"heatmaps/{slide}/{kind}.ome.zarr").is_dir()
        for picture in (tmp_path / f"heatmaps/{slide}").glob("*.png"):
            with Image.open(picture) as image:
                assert min(image.size) > 50


def test_attention_for_the_viewer(slide_run: Path, stores: Path, tmp_path: Path) -> None:
    """It is that of the first model, and a second prediction replaces it; the test of a fit stores it too."""
    for row in rows_of(slide_run / "predictions.csv"):
        assert read_case_map(slide_run, row["case"]).slides[0].store.startswith(str(stores))
    table = tmp_path / "labels.csv"
    table.write_text("slide,case\nslide-001,a/b\nslide-002,a/b\nslide-003,c\n")
    other = torch.load(slide_run / "best.ckpt", weights_only=True)
    other["state_dict"] = {name: 0.9 * value for name, value in other["state_dict"].items()}
    torch.save(other, tmp_path / "other.ckpt")
    both = json.dumps([str(slide_run), str(tmp_path / "other.ckpt")])
    predict("--model", both, "--cache", stores, "--labels", table, "--out", tmp_path)
    found = read_case_map(tmp_path, "a/b")
    assert [one.slide for one in found.slides] == ["slide-001", "slide-002"]
    expected = load_model(slide_run, device="cpu").predict([stores / "slide-001.zarr", stores / "slide-002.zarr"])
    relative = expected.patches.attention * len(expected.patches.coords)
    np.testing.assert_allclose(np.concatenate([one.heads for one in found.slides], axis=1), relative, rtol=2e-3)
    assert found.score == "log-odds of 1"
    rows = {row["case"]: row for row in rows_of(tmp_path / "predictions.csv")}
    for case, row in rows.items():  # the table has the scores of the ensemble
        scores = read_case_map(tmp_path, case).predicted
        assert scores == pytest.approx(
            {name: float(row[name]) for name in ("probability_0", "probability_1")}, rel=1e-6
        )
    table.write_text("slide,case\nslide-003,c\n")
    predict("--model", slide_run, "--cache", stores, "--labels", table, "--out", tmp_path)
    assert len(list((tmp_path / "attention").iterdir())) == 1
    assert read_case_map(tmp_path, "c").slides[0].slide == "slide-003"


def test_heatmaps_that_cannot_be_drawn_are_refused_before_any_prediction(feature_run: Path, tmp_path: Path) -> None:
    out, features = tmp_path / "out", feature_run.parent / "features"
    message = refusal("--model", feature_run, "--features", features, "--out", out, "--heatmaps", "rank")
    assert "features do not record where their patches lie" in message
    assert not out.exists()


def test_features(feature_run: Path, tmp_path: Path) -> None:
    predict("--model", feature_run, "--features", feature_run.parent / "features", "--out", tmp_path)
    rows = {row["case"]: row for row in rows_of(tmp_path / "predictions.csv")}
    assert len(rows) == 24
    assert not (tmp_path / "attention").exists()  # features do not record where patches lie
    for row in rows_of(feature_run / "predictions.csv"):
        assert {**rows[row["case"]], **row} == {**rows[row["case"]], "label": row["label"]}


def test_an_ensemble(feature_run: Path, second_feature_run: Path, tmp_path: Path) -> None:
    both = json.dumps([str(feature_run), str(second_feature_run)])
    features = feature_run.parent / "features"
    predict("--model", both, "--features", features, "--out", tmp_path)
    row = rows_of(tmp_path / "predictions.csv")[0]
    expected = load_model([feature_run, second_feature_run], device="cpu").predict(features / f"{row['case']}.pt").row()
    assert row == {name: f"{cell:.9g}" if isinstance(cell, float) else cell for name, cell in expected.items()}
    assert {"std_probability_1", "min_probability_1", "max_probability_1"} <= row.keys()


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        ({"mpp": (1.0,), "patch_size": 64}, ("64 px at 0.5 µm/px", "64 px at 1 µm/px")),
        ({"mpp": (0.5,), "patch_size": 32}, ("64 px at 0.5 µm/px", "32 px at 0.5 µm/px")),
    ],
)
def test_a_cache_of_other_patches_is_refused(
    settings: dict[str, object], values: tuple[str, str], slide_run: Path, cohort: Path, tmp_path: Path
) -> None:
    slide = cohort / "slides/slide-003.tiff"
    cache_slides(slide, tmp_path / "cache", workers=1, **settings)  # type: ignore[arg-type]
    message = refusal("--model", slide_run, "--cache", tmp_path / "cache", "--out", tmp_path / "out")
    assert all(value in message for value in values)
    again = refusal(
        "--model", slide_run, "--slides", slide, "--cache", tmp_path / "cache", "--out", tmp_path, "--workers", 1
    )
    assert "slide-003" in again
    assert not (tmp_path / "out").exists()


def test_finished_rows_survive_a_failure(feature_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(feature_run, device="cpu")
    names = ["s03", "s01", "s02"]
    bags = bags_of([Case(name, (name,)) for name in names], feature_run.parent / "features", model.contract)
    seen = []

    def stop(prediction: CasePrediction) -> None:
        seen.append([row["case"] for row in rows_of(tmp_path / PARTIAL)])
        if prediction.case == "s02":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions(model, bags, tmp_path, threads=1, also=stop)
    assert seen == [["s03"], ["s03", "s01"], ["s03", "s01", "s02"]]
    kept = rows_of(tmp_path / PARTIAL)
    assert not (tmp_path / "predictions.csv").exists()
    assert write_predictions(model, bags, tmp_path, threads=2) == []
    finished = rows_of(tmp_path / "predictions.csv")
    assert [row["case"] for row in finished] == sorted(names)
    assert all(row in finished for row in kept)
    assert not (tmp_path / PARTIAL).exists()


def test_credentials_that_expire_end_the_command_and_finished_rows_stay(
    slide_run: Path, stores: Path, bucket: FaultProxy, tmp_path: Path
) -> None:
    assert push(stores, "s3://cohorts/lesions") == []
    forget_objects()
    read: set[str] = set()

    def fault(method: str, path: str) -> str | None:
        if "/patches/" in path:
            read.add(path.split("/")[3])
        return "expired" if len(read) > 2 else None

    bucket.fault = fault
    words = ["--model", slide_run, "--cache", "s3://cohorts/lesions", "--out", tmp_path, "--workers", 1]
    assert "renew them and give them by AWS_ACCESS_KEY_ID" in refusal(*words)
    assert 1 <= len(rows_of(tmp_path / PARTIAL)) <= 2
    assert len(read) <= 4  # one is read ahead
    bucket.fault = lambda method, path: None
    predict(*words)
    assert len(rows_of(tmp_path / "predictions.csv")) == 24


def test_a_case_whose_picture_fails_keeps_its_row(feature_run: Path, tmp_path: Path) -> None:
    model = load_model(feature_run, device="cpu")
    bags = bags_of([Case(name, (name,)) for name in ("s01", "s02")], feature_run.parent / "features", model.contract)

    def refuse(prediction: CasePrediction) -> None:
        if prediction.case == "s01":
            raise InputError(f"{prediction.case} has no picture")

    assert write_predictions(model, bags, tmp_path, threads=1, also=refuse) == ["s01 has no picture"]
    assert [row["case"] for row in rows_of(tmp_path / "predictions.csv")] == ["s01", "s02"]


def test_cases_that_cannot_be_read_are_left_out(feature_run: Path, tmp_path: Path) -> None:
    shutil.copytree(feature_run.parent / "features", tmp_path / "features")
    model = load_model(feature_run, device="cpu")
    names = ("s01", "s02")
    bags = bags_of([Case(name, (name,)) for name in names], tmp_path / "features", model.contract)
    files = {file.stem: file for file in (tmp_path / "features").iterdir()}
    files["s01"].write_bytes(b"not features any more")
    (failed,) = write_predictions(model, bags, tmp_path, threads=1)
    assert "s01" in failed
    assert [row["case"] for row in rows_of(tmp_path / "predictions.csv")] == ["s02"]
    files["s02"].write_bytes(b"nor these")
    with pytest.raises(InputError, match=r"none of 2 cases could be predicted, first: .*s01"):
        write_predictions(model, bags, tmp_path, threads=1)
    assert not (tmp_path / PARTIAL).exists()


def test_the_long_form_with_a_config_still_works(feature_run: Path, tmp_path: Path) -> None:
    saved = ["--config", str(feature_run / "fit.yaml"), "--ckpt_path", str(feature_run / "best.ckpt")]
    main(["predict", *saved, "--trainer.default_root_dir", str(tmp_path)])
    long = {row["case"]: row for row in rows_of(next(tmp_path.rglob("predictions.csv")))}
    predict("--model", feature_run, "--features", feature_run.parent / "features", "--out", tmp_path / "short")
    short = {row["case"]: row for row in rows_of(tmp_path / "short/predictions.csv")}
    assert {case: row["probability_1"] for case, row in long.items()} == {
        case: row["probability_1"] for case, row in short.items()
    }


def test_wrong_options(
    feature_run: Path, slide_run: Path, stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features, out = feature_run.parent / "features", ["--out", tmp_path / "out"]
    for words, message in [
        (["--model", feature_run, *out], "give their folder (--features)"),
        (["--model", slide_run, *out], "give slides (--slides), a cache of slides (--cache)"),
        (["--model", slide_run, "--features", features, *out], "the model takes patches of 64 px"),
        (["--model", tmp_path / "none.ckpt", "--features", features, *out], "there is no checkpoint"),
        (["--model", feature_run, "--features", features, "--workers", 0, *out], "workers is 0"),
        (["--model", feature_run, "--features", tmp_path / "none", *out], "none"),
        (["--model", feature_run, "--features", features, "--labels", tmp_path / "no.csv", *out], "no.csv"),
        (["--model", slide_run, "--slides", tmp_path / "none", *out], "no such folder"),
    ]:
        found = refusal(*words)
        assert message in found
        assert "Traceback" not in found
    assert "'tpu9' cannot be used" in message_of(
        ["predict", "--model", str(feature_run), "--out", str(tmp_path / "out"), "--device", "tpu9"]
    )
    assert not (tmp_path / "out").exists()
    for words, word in [
        (["--model", feature_run, "--features", features, *out, "--heatmaps", "red"], "red"),
        (["--model", feature_run, "--features", features, *out, "--heat_maps", "rank"], "heat_maps"),
        (["--model", feature_run, "--features", features], "out"),
        (["--model", feature_run, "--features", features, *out, "--workers", "many"], "many"),
    ]:
        capsys.readouterr()
        refusal(*words)
        assert word in capsys.readouterr().err


def test_one_case_is_in_memory_at_a_time(feature_run: Path, tmp_path: Path) -> None:
    """Rows do not keep the predictions, which hold the attention to every patch."""
    model = load_model(feature_run, device="cpu")
    names = [f"s{number:02}" for number in range(6)]
    bags = bags_of([Case(name, (name,)) for name in names], feature_run.parent / "features", model.contract)
    kept: list[weakref.ref[CasePrediction]] = []
    alive = []

    def note(prediction: CasePrediction) -> None:
        kept.append(weakref.ref(prediction))
        alive.append(sum(one() is not None for one in kept))

    write_predictions(model, bags, tmp_path, threads=1, also=note)
    assert max(alive) <= 2
