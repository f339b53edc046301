"""An exported folder is the checkpoint, bit for bit, in files that run nothing."""

import io
import json
import os
import pickle
import shutil
import stat
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from safetensors.torch import load_file

from e2e_abmilx.encoders import Precomputed
from e2e_abmilx.errors import InputError
from e2e_abmilx.heads import MeanPool
from e2e_abmilx.models import load_model
from e2e_abmilx.models.folder import is_model, read_internal_measures, read_model, write_model
from e2e_abmilx.tasks import ClassificationTask


@pytest.fixture
def folder(feature_run: Path, tmp_path: Path) -> Path:
    """The folder of the model of features."""
    write_model(load_model(feature_run, device="cpu").tasks[0], tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("run", ["survival_run", "feature_run"])
def test_a_folder_is_the_checkpoint_bit_for_bit(run: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    checkpoint = load_model(request.getfixturevalue(run), device="cpu")
    write_model(checkpoint.tasks[0], tmp_path)
    read = load_model(tmp_path, device="cpu")
    before, after = checkpoint.tasks[0], read.tasks[0]
    assert type(after) is type(before)
    assert after.state_dict().keys() == before.state_dict().keys()
    assert all(torch.equal(value, before.state_dict()[name]) for name, value in after.state_dict().items())
    assert read.contract == checkpoint.contract
    assert read.threshold == checkpoint.threshold
    assert (after.classes, after.time_edges) == (before.classes, before.time_edges)
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "model.json", "contract.json"}
    write_model(after, tmp_path / "again")
    for name in ("model.safetensors", "model.json", "contract.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_predictions_are_those_of_the_checkpoint(
    slide_run: Path, feature_run: Path, stores: Path, tmp_path: Path
) -> None:
    for run, path in ((slide_run, stores / "slide-004.zarr"), (feature_run, feature_run.parent / "features/s21.pt")):
        model = load_model(run, device="cpu")
        write_model(model.tasks[0], tmp_path / run.parent.name)
        found = load_model(tmp_path / run.parent.name, device="cpu").predict(path)
        expected = model.predict(path)
        assert found.row() == expected.row()
        assert (found.patches.attention == expected.patches.attention).all()


def test_others_may_read_the_files(folder: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o666 & ~mask}


class Bomb:
    """An object whose unpickling makes a folder."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.place),)


def test_a_folder_unpickles_nothing(folder: Path, tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "tried")))
    assert (tmp_path / "tried").is_dir()  # it is armed
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
    torch.save(Bomb(tmp_path / "exploded"), tmp_path / "bomb.pt")
    for name in ("model.pt", "model.pkl", "pytorch_model.bin", "best.ckpt", "last.ckpt", "hparams.yaml"):
        (folder / name).write_bytes((tmp_path / "bomb.pt").read_bytes() if name.endswith("ckpt") else bomb)
    load_model(folder, device="cpu")
    for name in ("model.safetensors", "model.json", "contract.json"):
        original = (folder / name).read_bytes()
        for content in (bomb, (tmp_path / "bomb.pt").read_bytes()):
            (folder / name).write_bytes(content)
            with pytest.raises(InputError, match="export or download it again"):
                load_model(folder, device="cpu")
        (folder / name).write_bytes(original)
    assert not (tmp_path / "exploded").exists()


def test_weights_are_read_by_safetensors_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning is given the content in memory, which came from safetensors and JSON."""
    loads = []
    real = torch.load

    def watched(file: object, *args: object, **how: object) -> object:
        loads.append(file)
        return real(file, *args, **how)  # type: ignore[arg-type]

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("something was unpickled")

    monkeypatch.setattr(torch, "load", watched)
    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    read_model(folder)
    assert not loads
    load_model(folder, device="cpu")
    assert loads
    assert all(isinstance(file, io.BytesIO) for file in loads)


def test_incomplete_and_damaged_folders(folder: Path, tmp_path: Path) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    header = bytearray(weights)
    header[12] ^= 0xFF
    contract = json.loads((folder / "contract.json").read_text())
    for name, content, message in [
        ("model.json", None, "not a complete model"),
        ("model.json", b"{", "not a complete model"),
        ("model.json", b"[1]", "not a complete model"),
        ("model.json", b"{}", "does not name the classes"),
        ("contract.json", b"[]", "not a complete model"),
        ("contract.json", b'{"format": 1}', "not a complete model"),
        ("contract.json", b"\xff\xfe", "not a complete model"),
        ("contract.json", json.dumps({**contract, "format": 2}).encode(), "this release reads format 1; update"),
        ("contract.json", json.dumps({**contract, "input": {"kind": "x"}}).encode(), "contract is damaged"),
        ("model.safetensors", weights[:-5], "damaged"),
        ("model.safetensors", bytes(header), "damaged"),
        ("model.safetensors", b"", "damaged"),
    ]:
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        (copy / name).unlink()
        if content is not None:
            (copy / name).write_bytes(content)
        with pytest.raises(InputError, match=message):
            load_model(copy, device="cpu")
        shutil.rmtree(copy)
    (folder / "model.safetensors").unlink()
    assert not is_model(folder)
    with pytest.raises(InputError, match="holds no model"):
        load_model(folder, device="cpu")


def test_weights_of_another_model_are_refused(folder: Path, slide_run: Path, tmp_path: Path) -> None:
    write_model(load_model(slide_run, device="cpu").tasks[0], tmp_path / "other")
    shutil.copy(tmp_path / "other/model.safetensors", folder)
    with pytest.raises(InputError, match="its model cannot be built"):
        load_model(folder, device="cpu")


def test_settings_are_plain_and_name_no_first_weights(slide_run: Path, tmp_path: Path) -> None:
    task = load_model(slide_run, device="cpu").tasks[0]
    encoder = {"class_path": "e2e_abmilx.ResNetEncoder", "init_args": {"pretrained": True, "weights": Path("/mine.pt")}}
    task.settings = {**task.settings, "encoder": encoder, "folder": (Path("/x"), 1)}
    write_model(task, tmp_path)
    settings = json.loads((tmp_path / "model.json").read_text())
    assert settings["encoder"]["init_args"] == {"pretrained": False, "weights": None}
    assert settings["folder"] == ["/x", 1]
    assert "_instantiator" not in settings
    assert load_file(tmp_path / "model.safetensors").keys() == task.state_dict().keys()


def test_a_task_that_was_not_trained_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not trained"):
        write_model(ClassificationTask(Precomputed(8), MeanPool, 2), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_internal_measures(tmp_path: Path) -> None:
    assert read_internal_measures(tmp_path) is None
    (tmp_path / "internal_test.json").write_text('{"cases": 3}')
    assert read_internal_measures(tmp_path) == {"cases": 3}
    (tmp_path / "internal_test.json").write_text('{"cases":')
    with pytest.raises(InputError, match=r"internal_test\.json is damaged"):
        read_internal_measures(tmp_path)
