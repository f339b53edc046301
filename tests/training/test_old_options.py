"""Options and class paths of earlier releases end a command with one line that has their new names."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from feature_runs import write_config
from slide_runs import message_of

from e2e_abmilx.io.old_names import DATA_ARGUMENTS, TASK_ARGUMENTS
from e2e_abmilx.main import main
from e2e_abmilx.training.old_options import refuse_old_options

_VALUES = {"short_bags": "mask", "coarse_share": "0.5", "val_share": "0.5", "recompute": "true"}
_RENAMED = {
    **{f"model.{old}": f"model.{new}" for old, new in TASK_ARGUMENTS.items()},
    **{f"data.{old}": f"data.{new}" for old, new in DATA_ARGUMENTS.items()},
}


def _value(option: str) -> str:
    return _VALUES.get(option.rpartition(".")[2], "4")


def _add(config: Path, group: str, **arguments: object) -> dict[str, Any]:
    """Add arguments to a group of a config, and return the group."""
    content = yaml.safe_load(config.read_text())
    content[group]["init_args"] |= arguments
    config.write_text(yaml.safe_dump(content))
    added: dict[str, Any] = content[group]
    return added


def _assert_refused(words: list[str], renamed: dict[str, str]) -> None:
    message = message_of(words)
    assert message.startswith("error: options have new names: ")
    assert message.endswith("; rename them in the config or the command")
    assert "\n" not in message
    for old, new in renamed.items():
        assert f"{old} is now {new}" in message


@pytest.mark.parametrize("option", _RENAMED)
def test_each_option_on_the_command_line(option: str, tmp_path: Path) -> None:
    config = str(write_config(tmp_path))
    _assert_refused(["fit", "--config", config, f"--{option}", _value(option)], {option: _RENAMED[option]})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("form", ["--{}={}", "--{} {}", "--{group}.init_args.{name} {1}"])
def test_several_options_in_each_form(form: str, tmp_path: Path) -> None:
    words = ["fit", "--config", str(write_config(tmp_path))]
    for option in _RENAMED:
        group, name = option.split(".")
        words += form.format(option, _value(option), group=group, name=name).split()
    _assert_refused(words, _RENAMED)


def test_options_in_a_config(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    for option in _RENAMED:
        group, name = option.split(".")
        _add(config, group, **{name: yaml.safe_load(_value(option))})
    _assert_refused(["fit", "--config", str(config)], _RENAMED)
    _assert_refused(["fit", f"--config={config}"], _RENAMED)


@pytest.mark.parametrize(("group", "old", "new"), [
    ("model", "recompute", "gradient_checkpointing"), ("data", "workers", "num_workers"),
])  # fmt: skip
def test_options_in_the_file_of_a_group(group: str, old: str, new: str, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    file = tmp_path / "group.yaml"
    file.write_text(yaml.safe_dump(_add(config, group, **{old: 1})))
    _add(config, group)
    for words in ([f"--{group}", str(file)], [f"--{group}={file}"]):
        _assert_refused(["fit", "--config", str(config), *words], {f"{group}.{old}": f"{group}.{new}"})


@pytest.mark.parametrize(
    ("option", "old", "new"),
    [
        ("model.schedule", "e2e_abmilx.schedules.WarmupCosine", "e2e_abmilx.tasks.schedules.WarmupCosine"),
        ("model.augment", "e2e_abmilx.augment.RandomCrops", "e2e_abmilx.encoders.augment.RandomCrops"),
        ("trainer.logger", "e2e_abmilx.loggers.RunLogger", "e2e_abmilx.training.loggers.RunLogger"),
        (
            "trainer.callbacks+",
            "e2e_abmilx.callbacks.AttentionHeatmap",
            "e2e_abmilx.training.callbacks.AttentionHeatmap",
        ),
        (
            "trainer.callbacks+",
            "e2e_abmilx.callbacks.early_stopping.PatientStopping",
            "e2e_abmilx.training.callbacks.DeferredEarlyStopping",
        ),
        ("trainer.callbacks+", "PatientStopping", "DeferredEarlyStopping"),
    ],
)
def test_class_paths(option: str, old: str, new: str, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    for words in ([f"--{option}", old], [f"--{option}={old}"]):
        _assert_refused(["fit", "--config", str(config), *words], {old: new})
    content = yaml.safe_load(config.read_text())
    group, name = option.rstrip("+").split(".")
    where = content[group]["init_args"] if group == "model" else content[group]
    where[name] = [{"class_path": old}] if option.endswith("+") else {"class_path": old}
    config.write_text(yaml.safe_dump(content))
    _assert_refused(["fit", "--config", str(config)], {old: new})


def test_present_names_are_not_refused(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    message = "Option 'num_workers' is not accepted"
    refuse_old_options(["fit", "--config", str(config), "--data.num_workers", "1"], message)
    refuse_old_options(["fit", "--config", "absent.yaml", "--model", "ClassificationTask"], message)


_OWN = '''
from lightning.pytorch import LightningDataModule

class OwnData(LightningDataModule):
    """A data module of a user."""

    def __init__(self, workers: int = 0, chunk_size: int = 1) -> None:
        super().__init__()
'''


@pytest.fixture
def config_of_own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A config with the data module of a user, which states its ``workers``."""
    (tmp_path / "own_data.py").write_text(_OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = yaml.safe_load(write_config(tmp_path).read_text())
    config["data"] = {"class_path": "own_data.OwnData", "init_args": {"workers": 3}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    return str(tmp_path / "config.yaml")


def test_a_data_module_of_a_user_may_have_arguments_of_these_names(
    config_of_own_data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", config_of_own_data, "--data.chunk_size", "7", "--print_config"])
    assert stopped.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["data"]["init_args"] == {"workers": 3, "chunk_size": 7}


def test_another_mistake_next_to_such_an_argument_is_reported_itself(
    config_of_own_data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--config", config_of_own_data, "--data.nonsense", "7"])
    error = capsys.readouterr().err
    assert "nonsense" in error
    assert "new name" not in error
