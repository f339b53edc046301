"""The Python blocks of the README run, and its commands are those of CI."""

import re
import shutil
from pathlib import Path

import pytest

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


def test_the_two_commands_are_those_of_ci() -> None:
    commands = re.findall(r"^\$ (pip install .*)$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert commands == [
        "pip install -e . && e2e-abmilx fit --config configs/demo.yaml",
        'pip install -e ".[test]" && pytest',
    ]
    assert commands[1] in (README.parent / ".ci/run").read_text(encoding="utf-8")
