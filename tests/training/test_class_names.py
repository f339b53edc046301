"""A mistyped name of a class is refused in one sentence, with the near miss and the classes for its place."""

from pathlib import Path

import pytest
import yaml
from feature_runs import write_config

from e2e_abmilx.main import main
from e2e_abmilx.training.class_names import PLACES, explain_class_name


@pytest.mark.parametrize(
    ("option", "value", "mistake", "meant"),
    [
        ("model", "ClassificationTsk", "there is no task of this name", "ClassificationTask"),
        ("model.head", "ABMLX", "there is no head of this name", "ABMILX"),
        ("model.head", "e2e_abmilx.heads.ABMLX", "module 'e2e_abmilx.heads' has no attribute 'ABMLX'", "ABMILX"),
        ("model.head", "e2e_abmilx.head.ABMILX", "module 'e2e_abmilx' has no attribute 'head'", "ABMILX"),
        ("model.head", "absent_module.Head", "No module named 'absent_module'", None),
        ("model.head", "CoxLoss", "this is a class for loss, not for head", None),
        ("model.head", "torch.nn.Linear", "this is no head, because it does not derive from BagHead", None),
        ("model.encoder", "TimEncoder", "there is no encoder of this name", "TimmEncoder"),
        ("model.encoder.encoder", "ResNetEncodr", "there is no encoder of this name", "ResNetEncoder"),
        ("model.augment", "RandomCropps", "there is no augmentation of this name", "RandomCrops"),
        ("model.loss", "ABMIL", "this is a class for head, not for loss", None),
        ("model.loss", "e2e_abmilx.ABMIL", "this is a class for head, not for loss", None),
        ("model.loss", "CrossEntropyLos", "there is no loss of this name", "CrossEntropyLoss"),
        ("model.optimizer", "AdamWW", "there is no optimizer of this name", "AdamW"),
        ("model.schedule", "WarmupCosin", "there is no schedule of this name", "WarmupCosine"),
        ("data", "SlideDataModul", "there is no data module of this name", "SlideDataModule"),
        ("data.draw", "RegionDraw", "there is no draw of this name", "RegionalDraw"),
        ("trainer.callbacks", "AttentionHeatmp", "there is no callback of this name", "AttentionHeatmap"),
    ],
)
def test_mistakes(option: str, value: str, mistake: str, meant: str | None, tmp_path: Path) -> None:
    place = PLACES[option]
    config = tmp_path / "config.yaml"
    group, *names = option.split(".")
    inner: object = {"class_path": value}
    for name in reversed(names):
        inner = {name: [inner] if name == "callbacks" else inner}
    config.write_text(yaml.safe_dump({group: inner}))
    forms = {
        f"--{option} is {value}": ([f"--{option}", value], [f"--{option}={{class_path: {value}}}"]),
        f"in {config}, {option} is {value}": (["--config", str(config)], [f"--config={config}"]),
    }
    for where, commands in forms.items():
        for words in commands:
            message = explain_class_name(["fit", *words])
            assert message is not None
            assert message.startswith(f"{where}, but {mistake}")
            assert (f"; did you mean {meant}?" in message) if meant else ("did you mean" not in message)
            assert all(name in message for name in place.ours)
            assert "\n" not in message


def test_right_names_are_not_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [f"--{option}={name}" for option, place in PLACES.items() for name in place.ours]
    words += ["--model.loss", "torch.nn.NLLLoss", "--model.schedule=null", "--model.optimizer", "AdamW"]
    (tmp_path / "head.yaml").touch()
    monkeypatch.chdir(tmp_path)
    words += ["--model.head", "head.yaml"]  # a file, although it could be a path of a class
    words += ["--trainer.callbacks+=EarlyStopping", "--data.labels", "ABMLX", "--config", "absent.yaml"]
    assert explain_class_name(words) is None


def test_the_command_exits_with_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path)
    expected = (
        "error: --model.head is ABMLX, but there is no head of this name; did you mean ABMILX? (this package's: ABMIL,"
    )
    for words in (["--model.head", "ABMLX"], ["--model.head={class_path: ABMLX}"]):
        with pytest.raises(SystemExit) as stopped:
            main(["fit", "--config", str(config), *words])
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert expected in error
        assert "Union" not in error


def test_an_unknown_argument_of_a_class_has_its_near_miss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(write_config(tmp_path)), "--model.head.hiden", "3"])
    assert (
        "--model.head.hiden is no option of ABMIL; did you mean --model.head.hidden_features?"
        in capsys.readouterr().err
    )
