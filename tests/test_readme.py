"""The Python blocks of the README run, and its commands are those of CI."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from slide_runs import write_slide_config

from e2e_abmilx.main import main

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_the_head_as_a_module() -> None:
    names: dict[str, object] = {}
    exec(BLOCKS[0], names)
    assert names["logits"].shape == (4, 2)  # type: ignore[attr-defined]
    assert names["attention"].shape == (4, 8, 500)  # type: ignore[attr-defined]


def test_the_path_from_slides_to_test_auc(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(cohort / "slides", tmp_path / "slides")
    text = (cohort / "labels.csv").read_text().replace(",lesion,", ",label,")
    (tmp_path / "labels.csv").write_text(text)
    monkeypatch.chdir(tmp_path)
    small = BLOCKS[1].replace("patch_size=256", "patch_size=64").replace("max_epochs=20", "max_epochs=1")
    names: dict[str, object] = {}
    exec(small.replace("patches_per_bag=128", "patches_per_bag=8"), names)
    assert "test/auc" in names["trainer"].callback_metrics  # type: ignore[attr-defined]


def test_a_new_slide(cohort: Path, stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_slide_config(tmp_path, cohort, stores)
    (tmp_path / "new").mkdir()
    shutil.copy(cohort / "slides" / "slide-000.tiff", tmp_path / "new" / "slide.tiff")
    monkeypatch.chdir(tmp_path)
    main(["fit", "--config", str(config), "--trainer.default_root_dir", "runs/demo", "--trainer.max_epochs", "1"])
    names: dict[str, object] = {}
    exec(BLOCKS[2], names)
    scores = names["prediction"].scores  # type: ignore[attr-defined]
    assert list(scores) == ["probability_0", "probability_1"]
    (command,) = re.findall(r"^\$ e2e-abmilx (predict +--model .*)$", README.read_text(encoding="utf-8"), re.MULTILINE)
    main(command.split())
    (row,) = pd.read_csv("out/predictions.csv").to_dict("records")
    assert row["case"] == "slide"
    assert row["probability_1"] == pytest.approx(scores["probability_1"], abs=1e-8)
    assert Path("out/heatmaps/slide/overlay.png").is_file()


def test_the_two_commands_are_those_of_ci() -> None:
    commands = re.findall(r"^\$ (pip install .*)$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert commands == [
        "pip install -e . && e2e-abmilx fit --config configs/demo.yaml",
        'pip install -e ".[test]" && pytest',
    ]
    assert commands[1] in (README.parent / ".ci/run").read_text(encoding="utf-8")
