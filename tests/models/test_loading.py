"""Models from every source, and sources that hold none."""

import json
import os
import shutil
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch

from e2e_abmilx.encoders import Precomputed
from e2e_abmilx.errors import InputError
from e2e_abmilx.heads import ABMIL
from e2e_abmilx.models import load_model
from e2e_abmilx.models.folder import write_model
from e2e_abmilx.models.loading import find_models
from e2e_abmilx.tasks import ClassificationTask


class OwnTask(ClassificationTask):
    """A task from outside the package."""


@pytest.fixture
def folds(feature_run: Path, tmp_path: Path) -> Path:
    """The folder of a cross-validation."""
    for number in (0, 1, 10, 2):
        (tmp_path / f"cv/fold-{number}").mkdir(parents=True)
        shutil.copy(feature_run / "best.ckpt", tmp_path / f"cv/fold-{number}/best.ckpt")
    return tmp_path / "cv"


def change(run: Path, to: Path, **changes: object) -> Path:
    """Write the checkpoint of a run with other hyperparameters or, for ``_content``, other content."""
    content = torch.load(run / "best.ckpt", weights_only=True)
    content |= changes.pop("_content", {})  # type: ignore[operator]
    content["hyper_parameters"] |= changes
    torch.save(content, to)
    return to


def test_every_source_names_its_models(feature_run: Path, second_feature_run: Path, folds: Path) -> None:
    best = feature_run / "best.ckpt"
    assert find_models(best) == find_models(str(feature_run)) == [best]
    assert find_models(feature_run / "last.ckpt") == [feature_run / "last.ckpt"]
    assert find_models([feature_run, second_feature_run]) == [best, second_feature_run / "best.ckpt"]
    assert [path.parent.name for path in find_models(folds)] == ["fold-0", "fold-1", "fold-2", "fold-10"]
    assert find_models(folds / "fold-1") == [folds / "fold-1/best.ckpt"]
    assert {path.parent.name for path in find_models(str(folds / "*/best.ckpt"))} == {
        f"fold-{n}" for n in (0, 1, 2, 10)
    }
    assert find_models(str(folds / "fold-1*")) == [folds / "fold-1/best.ckpt", folds / "fold-10/best.ckpt"]
    assert find_models(str(folds.parent / "c*")) == find_models(folds)
    assert len(load_model(folds, device="cpu").tasks) == 4


def test_a_word_for_a_checkpoint_is_its_file(feature_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(feature_run)
    assert find_models("best") == find_models("best.ckpt") == [Path("best.ckpt")]
    assert find_models(".") == [Path("best.ckpt")]


def test_a_model_that_is_named_twice_is_refused(feature_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(feature_run)
    for twice in ([feature_run, feature_run / "best.ckpt"], ["best.ckpt", str(feature_run)]):
        with pytest.raises(InputError, match=r"best\.ckpt is named twice"):
            find_models(twice)
    with pytest.raises(InputError, match="no model is given"):
        find_models([])


def test_sources_without_a_model(feature_run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "garbage.ckpt").write_bytes(b"no zip")
    for source, message in [
        (tmp_path / "empty", "holds no model: neither best.ckpt"),
        (feature_run / "other.ckpt", r"there is no checkpoint .*other\.ckpt; .* has best\.ckpt, last\.ckpt"),
        (tmp_path / "no-*/best.ckpt", "there is no checkpoint"),
        (tmp_path / "garbage.ckpt", "is not a checkpoint, or was not written completely"),
    ]:
        with pytest.raises(InputError, match=message):
            load_model(source, device="cpu")


class Shape:
    """A class that only this file knows."""


def test_files_of_something_else(feature_run: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive.ckpt", "w") as archive:
        archive.writestr("notes.txt", "no weights")
    torch.save({"model": Shape()}, tmp_path / "pickled.ckpt")
    torch.save(torch.ones(3), tmp_path / "tensor.ckpt")
    torch.save({"conv1.weight": torch.ones(3)}, tmp_path / "weights.ckpt")
    torch.save({"state_dict": {}, "epoch": 3}, tmp_path / "lightning.ckpt")
    content = (feature_run / "best.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(content[: len(content) // 2])
    for name in ("archive", "pickled", "tensor", "weights", "lightning", "cut"):
        with pytest.raises(InputError, match=rf"{name}\.ckpt"):
            load_model(tmp_path / f"{name}.ckpt", device="cpu")


def test_a_pickled_object_is_not_made(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "hyper_parameters": {"_class_path": Bomb(tmp_path)}}, tmp_path / "bomb.ckpt")
    with pytest.raises(InputError, match=r"bomb\.ckpt"):
        load_model(tmp_path / "bomb.ckpt")
    assert not (tmp_path / "exploded").exists()


class Bomb:
    """An object whose unpickling makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder / "exploded"),)


def test_tasks_from_outside_are_found(feature_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = change(feature_run, tmp_path / "own.ckpt", _class_path="lab.models.LabTask")
    with pytest.raises(
        InputError, match=r"class lab\.models\.LabTask of this model is not found \(No module named 'lab'\); install"
    ):
        load_model(path)
    known = change(feature_run, tmp_path / "known.ckpt", _class_path=f"{OwnTask.__module__}.OwnTask")
    task = load_model(known, device="cpu").tasks[0]
    assert type(task) is OwnTask
    # a command runs in a process of its own, in which nobody imports the user's module
    (tmp_path / "own_lab_of_this_test.py").write_text(
        "from e2e_abmilx.tasks import ClassificationTask\n\n\nclass LabTask(ClassificationTask):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    other = change(feature_run, tmp_path / "other.ckpt", _class_path="own_lab_of_this_test.LabTask")
    assert type(load_model(other, device="cpu").tasks[0]).__name__ == "LabTask"
    for wrong in ("e2e_abmilx.main.main", "e2e_abmilx.absent.Task", "os.system"):
        with pytest.raises(InputError, match=wrong.rpartition(".")[2]):
            load_model(change(feature_run, tmp_path / "wrong.ckpt", _class_path=wrong))


def test_a_task_that_was_built_in_python(feature_run: Path, tmp_path: Path) -> None:
    content = torch.load(feature_run / "best.ckpt", weights_only=True)
    content["hyper_parameters"] = {"num_outputs": 2}
    torch.save(content, tmp_path / "python.ckpt")
    with pytest.raises(InputError, match=r"built in Python; build it again with YourTask\.load_from_checkpoint"):
        load_model(tmp_path / "python.ckpt")
    task = ClassificationTask.load_from_checkpoint(
        tmp_path / "python.ckpt", encoder=Precomputed(8), head=partial(ABMIL, hidden_features=16)
    )
    with pytest.raises(InputError, match="built in Python from modules, which no settings can rebuild"):
        write_model(task, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_settings_that_do_not_fit_the_weights(feature_run: Path, tmp_path: Path) -> None:
    head = {"class_path": "e2e_abmilx.ABMIL", "init_args": {"hidden_features": 32}}
    for settings in ({"head": head}, {"no_argument": 3}, {"head": {**head, "class_path": "e2e_abmilx.NoHead"}}):
        with pytest.raises(InputError, match=r"changed\.ckpt: its model cannot be built"):
            load_model(change(feature_run, tmp_path / "changed.ckpt", **settings))


@pytest.mark.parametrize("name", ["head", "optimizer", "schedule", "loss", "encoder", "augment"])
def test_settings_call_no_other_function(feature_run: Path, tmp_path: Path, name: str) -> None:
    """The settings of a downloaded model must not run what its author likes."""
    spy = f"{__name__}.note_call"
    (tmp_path / "settings.json").write_text(json.dumps({"class_path": spy}))  # jsonargparse reads such files too
    for value in (
        spy,
        {"class_path": spy},
        str(tmp_path / "settings.json"),
        {"class_path": "e2e_abmilx.ABMIL", "init_args": {"head": spy}},
    ):
        called.clear()
        with pytest.raises(InputError):
            load_model(change(feature_run, tmp_path / "changed.ckpt", **{name: value}))
        assert not called


def test_settings_read_no_other_file(feature_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """jsonargparse takes the path of a file in place of settings, which would not be checked."""
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path / "encoder.json", Path("encoder")):
        place.write_text(json.dumps({"class_path": "e2e_abmilx.Precomputed", "init_args": {"num_features": 8}}))
        with pytest.raises(InputError, match="encoder"):
            load_model(change(feature_run, tmp_path / "changed.ckpt", encoder=str(place)))


called: list[object] = []


def note_call(first: int = 0, second: int = 0) -> None:
    """Note a call; it can stand for any function of an installed package."""
    called.append((first, second))


def test_a_contract_edited_by_hand_must_name_every_output(feature_run: Path, tmp_path: Path) -> None:
    contract = torch.load(feature_run / "best.ckpt", weights_only=True)["contract"]
    for classes in (["0"], ["0", "1", "2"]):
        edited = change(feature_run, tmp_path / "edited.ckpt", _content={"contract": {**contract, "classes": classes}})
        with pytest.raises(InputError, match=rf"names {len(classes)} classes .*, and the model has 2 outputs"):
            load_model(edited, device="cpu")
