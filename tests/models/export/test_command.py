"""The command ``export``: the files, what it refuses, and that it never loses anything."""

import json
import os
import shutil
from pathlib import Path

import onnxruntime
import pytest
import torch
import yaml
from feature_runs import files_in
from onnx_support import needs_onnx
from slide_runs import message_of

from e2e_abmilx.errors import InputError
from e2e_abmilx.main import main
from e2e_abmilx.models import load_model
from e2e_abmilx.models.export import command
from e2e_abmilx.reports.stored_measures import measures_json
from e2e_abmilx.runs.read import read_run

PLAIN = {"README.md", "contract.json", "internal_test.json", "model.json", "model.safetensors"}


def export(*words: object) -> None:
    main(["export", *map(str, words)])


def refusal(*words: object) -> str:
    return message_of(["export", *map(str, words)])


@needs_onnx
def test_a_model_of_features(feature_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export("--model", feature_run, "--out", out, "--license", "cc-by-nc-4.0")
    assert {path.name for path in out.iterdir()} == PLAIN | {"head.onnx"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    features = torch.randn(1, 5, 8)
    model = load_model(out, device="cpu")
    session = onnxruntime.InferenceSession(out / "head.onnx")
    logits, attention = session.run(None, {"features": features.numpy()})
    with torch.no_grad():
        expected = model.tasks[0].head.attend(features)
    torch.testing.assert_close(torch.from_numpy(logits), expected.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.from_numpy(attention), expected.attention, rtol=1e-4, atol=1e-4)
    path = feature_run.parent / "features/s21.pt"
    assert model.predict(path).row() == load_model(feature_run, device="cpu").predict(path).row()
    front = yaml.safe_load((out / "README.md").read_text().split("---\n")[1])
    assert front["license"] == "cc-by-nc-4.0"


def test_the_card_and_the_folder_state_the_internal_test(feature_run: Path, tmp_path: Path) -> None:
    export("--model", feature_run / "best.ckpt", "--out", tmp_path / "out", "--onnx", "false")
    assert {path.name for path in (tmp_path / "out").iterdir()} == PLAIN
    stored = json.loads((tmp_path / "out/internal_test.json").read_text())
    assert stored == json.loads(json.dumps(measures_json(read_run(feature_run).predictions)))
    assert stored["cases"] == 6
    front = yaml.safe_load((tmp_path / "out/README.md").read_text().split("---\n")[1])
    (result,) = front["model-index"][0]["results"]
    stated = {measure["type"]: measure["value"] for measure in result["metrics"]}
    for name in ("auc", "balanced_accuracy", "sensitivity"):
        assert stated[name] == pytest.approx(stored["measures"][name]["point"], abs=1e-4)
    text = (tmp_path / "out/README.md").read_text()
    for name in ("s20", "s01", str(feature_run)):
        assert name not in text + json.dumps(stored)  # no case and no folder of this machine


def test_a_model_of_slides(survival_run: Path, stores: Path, tmp_path: Path) -> None:
    export("--model", survival_run, "--out", tmp_path / "out", "--onnx", "false")
    assert {path.name for path in (tmp_path / "out").iterdir()} == PLAIN
    store = stores / "slide-004.zarr"
    found = load_model(tmp_path / "out", device="cpu").predict(store)
    assert found.row() == load_model(survival_run, device="cpu").predict(store).row()
    assert "| µm per pixel | 0.5 |" in (tmp_path / "out/README.md").read_text()


def test_another_checkpoint_states_no_performance(feature_run: Path, tmp_path: Path) -> None:
    export("--model", feature_run / "last.ckpt", "--out", tmp_path / "last", "--onnx", "false")
    assert {path.name for path in (tmp_path / "last").iterdir()} == PLAIN - {"internal_test.json"}
    assert "metrics" not in (tmp_path / "last/README.md").read_text().split("---\n")[1]
    shutil.copy(feature_run / "best.ckpt", tmp_path / "best.ckpt")
    export("--model", tmp_path / "best.ckpt", "--out", tmp_path / "moved", "--onnx", "false")
    assert not (tmp_path / "moved/internal_test.json").exists()


def test_an_exported_model_is_exported_again(feature_run: Path, tmp_path: Path) -> None:
    export("--model", feature_run, "--out", tmp_path / "one", "--onnx", "false")
    export("--model", tmp_path / "one", "--out", tmp_path / "two", "--onnx", "false")
    for name in PLAIN - {"README.md"}:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_other_folders_are_refused_and_lose_nothing(feature_run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    export("--model", feature_run, "--out", tmp_path / "model", "--onnx", "false")
    shutil.copytree(tmp_path / "model", tmp_path / "annotated")
    (tmp_path / "annotated/notes.txt").write_text("mine")
    (tmp_path / "half").mkdir()
    shutil.copy(tmp_path / "model/contract.json", tmp_path / "half")
    before, run_before = files_in(tmp_path), files_in(feature_run)
    for out, message in [
        ("mine", r"holds something else than an exported model (notes.txt)"),
        ("file", "holds something else"),
        ("annotated", "(notes.txt)"),
        ("half", "holds something else"),
        (feature_run, "holds something else"),
        (feature_run.parent, "holds something else"),
        (".", "holds something else"),
    ]:
        assert message in refusal("--model", feature_run, "--out", tmp_path / out, "--onnx", "false")
    assert "is the model itself" in refusal("--model", tmp_path / "model", "--out", tmp_path / "model")
    assert files_in(tmp_path) == before
    assert files_in(feature_run) == run_before


def test_an_old_model_is_replaced_only_by_a_finished_one(
    feature_run: Path, second_feature_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export("--model", feature_run, "--out", out, "--onnx", "false")
    (out / "head.onnx").write_bytes(b"a graph of the old model")
    before = files_in(out)
    with monkeypatch.context() as patch:
        patch.setattr(command, "model_card", lambda *_, **__: (_ for _ in ()).throw(InputError("the disk is full")))
        assert "the disk is full" in refusal("--model", second_feature_run, "--out", out, "--onnx", "false")
    assert files_in(tmp_path) == {f"out/{name}": content for name, content in before.items()}
    export("--model", second_feature_run, "--out", out, "--onnx", "false")
    assert {path.name for path in out.iterdir()} == PLAIN
    assert (out / "model.safetensors").read_bytes() != before["model.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_old_model_comes_back_if_the_new_one_cannot_take_its_place(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/model.json").write_text("old")
    with pytest.raises(OSError, match="absent"):
        command._replace(tmp_path / "out", tmp_path / "absent")
    assert files_in(tmp_path) == {"out/model.json": b"old"}


def test_the_present_folder(feature_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    export("--model", feature_run, "--out", ".", "--onnx", "false")
    os.chdir(tmp_path)
    assert {path.name for path in (tmp_path / "here").iterdir()} == PLAIN


def test_what_cannot_be_exported(feature_run: Path, second_feature_run: Path, tmp_path: Path) -> None:
    for number, run in enumerate((feature_run, second_feature_run)):
        (tmp_path / f"cv/fold-{number}").mkdir(parents=True)
        shutil.copy(run / "best.ckpt", tmp_path / f"cv/fold-{number}")
    message = refusal("--model", tmp_path / "cv", "--out", tmp_path / "out")
    assert "names 2 models; export one of them" in message
    assert "fold-0" in message
    assert "holds no model" in refusal("--model", tmp_path, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_that_changed_on_the_disk_are_refused() -> None:
    weights = {"a": torch.ones(2), "b": torch.zeros(2)}
    command._refuse_changes(dict(weights), weights)
    for read in ({"a": torch.ones(2)}, {**weights, "b": torch.full((2,), 1e-30)}, {**weights, "c": torch.ones(1)}):
        with pytest.raises(InputError, match="are not read back as they were written"):
            command._refuse_changes(read, weights)
