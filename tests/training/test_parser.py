"""Null is None at every depth, and abbreviated options are refused."""

from pathlib import Path

import pytest
import yaml
from slide_runs import message_of, write_slide_config

from e2e_abmilx.main import main


@pytest.fixture
def config(cohort: Path, stores: Path, tmp_path: Path) -> Path:
    return write_slide_config(tmp_path, cohort, stores)


@pytest.mark.parametrize("written", [["{}", "null"], ["{}=null"]])
@pytest.mark.parametrize(
    "option",
    [
        "model.encoder.weights",
        "model.encoder.init_args.weights",
        "data.slides",
        "data.splits",
        "data.slide_table",
        "trainer.default_root_dir",
        "trainer.callbacks.dirpath",
        "ckpt_path",
    ],
)
def test_null_is_none_at_every_depth(
    config: Path, capsys: pytest.CaptureFixture[str], option: str, written: list[str]
) -> None:
    callbacks = ["--trainer.callbacks+=ModelCheckpoint"] if "callbacks" in option else []
    words = [word.format(f"--{option}") for word in written]
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(config), *callbacks, *words, "--print_config"])
    assert stopped.value.code == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    for key in option.replace(".init_args", "").split("."):
        settings = settings[0] if isinstance(settings, list) else settings
        settings = settings.get("init_args", settings)[key]
    assert settings is None


def test_weights_that_are_null_are_not_loaded(config: Path, tmp_path: Path) -> None:
    words = ["fit", "--config", str(config), "--trainer.fast_dev_run", "true"]
    main([*words, "--model.encoder.weights", "null"])
    frozen = ["--model.encoder", "FrozenEncoder", "--model.encoder.encoder", "ResNetEncoder"]
    deep = ["--model.encoder.encoder.pretrained", "false", "--model.encoder.encoder.weights", "null"]
    main([*words, *frozen, *deep])
    assert "weights absent.pt: there is no such file" in message_of(
        [*words, *frozen, *deep[:2], "--model.encoder.encoder.weights", "absent.pt"]
    )


def test_abbreviated_options_are_refused(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message_of(["fit", "--config", str(config), "--trainer.max_epoch", "5", "--print_config"])
    assert "max_epoch" in capsys.readouterr().err
