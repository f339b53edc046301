"""The short help names options that exist, and the complete help remains."""

import re

import pytest
import yaml

from e2e_abmilx.main import main
from e2e_abmilx.training.short_help import OPTIONS, OPTIONS_OF, short_help

COMMANDS = ("plan", "fit", "validate", "test", "predict")


def _printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    assert stopped.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_it_is_short(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = _printed(capsys, command, "--help")
    assert shown == short_help(command)
    assert len(shown.splitlines()) <= 80
    assert max(map(len, shown.splitlines())) <= 100
    assert f"{command} --help_all" in shown


def test_all_options_are_in_the_complete_help(capsys: pytest.CaptureFixture[str]) -> None:
    everything = _printed(capsys, "fit", "--help_all")
    assert "--trainer.reload_dataloaders_every_n_epochs" in everything
    for options in OPTIONS.values():
        for name in options:
            if not name.startswith(("model.", "data.")):
                assert re.search(rf"--{re.escape(name)}[ ,\n]", everything), name  # a comma: Python 3.13


def test_a_plan_has_options_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    everything, shown = _printed(capsys, "plan", "--help_all"), _printed(capsys, "plan", "--help")
    for name in OPTIONS_OF["plan"]:
        assert f"--{name}" in everything
        assert f"--{name} " in shown
        assert f"--{name} " not in short_help("fit")


def test_options_of_model_and_data_exist(capsys: pytest.CaptureFixture[str]) -> None:
    classes = ["--model=ClassificationTask", "--data=SlideDataModule", "--data.cache=c", "--model.head=ABMILX"]
    classes += ["--model.encoder=ResNetEncoder", "--model.num_outputs=2"]
    settings = yaml.safe_load(_printed(capsys, "fit", *classes, "--print_config"))
    for options in OPTIONS.values():
        for name in options:
            group, _, option = name.partition(".")
            if group in ("model", "data") and option:
                assert option in settings[group]["init_args"], name


def test_the_help_of_a_class_does_not_list_all_modules_of_torch(capsys: pytest.CaptureFixture[str]) -> None:
    shown = _printed(capsys, "fit", "--model.help", "ClassificationTask")
    assert "--model.gradient_checkpointing" in shown
    assert len(shown.splitlines()) < 200
    assert "hidden_features" in _printed(capsys, "fit", "--model.head.help", "ABMIL")
