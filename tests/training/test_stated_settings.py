from pathlib import Path

import pytest

from e2e_abmilx.training.stated_settings import Setting, read_settings


def test_options_of_a_command_line() -> None:
    words = [
        "fit",
        "--model.head=ABMIL",
        "--data.init_args.mpp",
        "0.5",
        "--trainer.callbacks+",
        "FeatureWriter",
        "--probe",
    ]
    assert list(read_settings(words)) == [
        Setting("model.head", "ABMIL"),
        Setting("data.mpp", "0.5"),
        Setting("trainer.callbacks", "FeatureWriter"),
        Setting("probe", ""),
    ]


def test_values_that_are_written_as_yaml_are_taken_apart() -> None:
    found = list(
        read_settings(["--model.head", "{class_path: ABMIL, init_args: {dropout: 0.1}}", "--data.mpp=[0.5, 1.0]"])
    )
    assert found == [
        Setting("model.head.class_path", "ABMIL"),
        Setting("model.head.dropout", 0.1),
        Setting("data.mpp", 0.5),
        Setting("data.mpp", 1.0),
    ]


def test_config_files_and_files_of_a_group(tmp_path: Path) -> None:
    config, model = tmp_path / "config.yaml", tmp_path / "model.yaml"
    config.write_text("data: {class_path: SlideDataModule, init_args: {cache: stores}}")
    model.write_text("class_path: ClassificationTask")
    assert list(read_settings(["--config", str(config), f"--model={model}"])) == [
        Setting("data.class_path", "SlideDataModule", str(config)),
        Setting("data.cache", "stores", str(config)),
        Setting("model.class_path", "ClassificationTask", str(model)),
    ]


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read_is_left_to_the_parser(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    files = ["--config", str(tmp_path / "config.yaml"), "--config", str(tmp_path / "absent.yaml")]
    assert {setting.value for setting in read_settings(files)} <= {None}
