"""The configs of studies, and the generic ones in ``configs/``, which come from the same template."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from built_recipes import CONFIGS, build_recipe
from hypothesis import given
from hypothesis import strategies as st

from e2e_abmilx.study.recipe import GENERIC, MONITORS, Recipe, text
from e2e_abmilx.tasks import BagTask, ClassificationTask, MultiLabelTask, RegressionTask, SurvivalTask


@pytest.mark.parametrize("name", GENERIC)
def test_the_generic_configs_are_the_defaults(name: str) -> None:
    """If this fails: ``(CONFIGS / f"{name}.yaml").write_text(GENERIC[name].render())``."""
    content = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
    assert content == GENERIC[name].render()
    assert 25 <= len(content.splitlines()) <= 40


@pytest.mark.parametrize("name", GENERIC)
def test_the_generic_configs_build(name: str, tmp_path: Path) -> None:
    recipe = build_recipe(name, tmp_path, **{"model.encoder.pretrained": "false"})
    assert isinstance(recipe.task, {"classification": ClassificationTask, "survival": SurvivalTask}[name])
    assert recipe.config.model.init_args.encoder.init_args.name == "resnet18.tv_in1k"
    assert (recipe.data.patch_size, recipe.data.mpp, recipe.data.plan.folds) == (256, (0.5, 1.0), 5)
    assert recipe.task.augment.size == 224
    assert recipe.data.plan.time_bins == 4
    assert recipe.config.checkpoint.monitor == recipe.task.monitor


def test_the_monitors_are_those_of_the_tasks() -> None:
    tasks: list[type[BagTask]] = [ClassificationTask, MultiLabelTask, SurvivalTask, RegressionTask]
    assert {task.target: task.monitor for task in tasks} == MONITORS


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1))
def test_text_is_read_back(value: str) -> None:
    assert yaml.safe_load(text(value)) == value


@pytest.mark.parametrize("value", ["no", "null", "1e3", "a: b", "slides/", "ä ö/x.csv", "/data/x y", "- a", "#", "~/x"])
def test_names_that_yaml_might_change(value: str) -> None:
    recipe = replace(GENERIC["classification"], classes=(value, "1.0"), columns={"label": value}, cache=value)
    data = yaml.safe_load(recipe.render())["data"]["init_args"]
    assert (data["classes"], data["columns"], data["cache"]) == ([value, "1.0"], {"label": value}, value)


def test_every_optional_line_together_is_short_enough() -> None:
    recipe = Recipe(
        "title",
        (),
        "survival",
        4,
        columns={"time": "t", "event": "e"},
        skip_missing=True,
        assume_mpp=0.25,
        weights="w.pth",
    )
    content = recipe.render()
    assert len(content.splitlines()) <= 40
    model = yaml.safe_load(content)["model"]["init_args"]
    assert model["encoder"]["init_args"] == {"name": "resnet18.tv_in1k", "weights": "w.pth"}
    assert all(
        "#" in line or line.rstrip().endswith(":") for line in content.splitlines() if "skip" in line or "mpp" in line
    )
