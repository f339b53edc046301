"""Lists as people type them, and options that do not exist, in options of functions and of nested classes."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e_abmilx.io.option_parser import OptionParser


class Data:
    """Data of a test.

    Args:
        mpp: Scales.
        classes: Names.
        seed: A number.
        labels: A file.
    """

    def __init__(
        self,
        mpp: tuple[float | str, ...] = (0.5, 1.0),
        classes: list[str | int] | None = None,
        seed: int = 0,
        labels: Path | None = None,
        runs: Path | list[Path] = Path(),
        model: str | list[str] = "",
        columns: dict[str, str] | None = None,
    ) -> None: ...


class Outer:
    """A class with a nested class."""

    def __init__(self, inner: Data | None = None) -> None: ...


class Free:
    """A class that takes any argument."""

    def __init__(self, **how: Any) -> None: ...


def _parse(nested: str, *words: str) -> Any:
    parser = OptionParser(prog="e2e-abmilx tool")
    parser.add_argument("--config", action="config")
    if nested == "outer.inner.":
        parser.add_subclass_arguments(Outer, "outer")
        words = ("--outer=Outer", "--outer.inner=Data", *words)
    elif nested == "data.":
        parser.add_subclass_arguments(Data, "data")
        words = ("--data=Data", *words)
    else:
        parser.add_class_arguments(Data)
    settings = parser.parse_args([word.replace("@", nested) for word in words]).as_dict()
    for key in [part for part in nested.split(".") if part]:
        settings = settings[key]["init_args"]
    return settings


DEPTHS = pytest.mark.parametrize("nested", ["", "data.", "outer.inner."])


@DEPTHS
@pytest.mark.parametrize(
    "words",
    [
        ["--@mpp", "0.5", "2.0"],
        ["--@mpp", "0.5,2.0"],
        ["--@mpp=0.5,2.0"],
        ["--@mpp", "[0.5,2.0]"],
        ["--@mpp", "[0.5,", "2.0]"],
        ["--@mpp=[0.5, 2.0]"],
        ["--@seed", "3", "--@mpp", "0.5", "2.0", "--@labels", "a,b.csv"],
    ],
)
def test_a_list_of_numbers(nested: str, words: list[str]) -> None:
    assert tuple(_parse(nested, *words)["mpp"]) == (0.5, 2.0)


@DEPTHS
def test_one_value_is_a_list_of_one(nested: str) -> None:
    assert tuple(_parse(nested, "--@mpp", "20x")["mpp"]) == ("20x",)
    assert tuple(_parse(nested, "--@mpp", "0.5")["mpp"]) == (0.5,)
    assert _parse(nested, "--@classes", "tumour")["classes"] == ["tumour"]
    if nested != "outer.inner.":  # BagArgumentParser reads null there
        assert _parse(nested, "--@classes", "null")["classes"] is None


@DEPTHS
def test_values_that_are_no_lists_are_unchanged(nested: str) -> None:
    settings = _parse(nested, "--@labels", "a,b.csv", "--@model", "a,b.ckpt", "--@columns", "{label: a}")
    assert (str(settings["labels"]), settings["model"], settings["columns"]) == ("a,b.csv", "a,b.ckpt", {"label": "a"})


@DEPTHS
def test_one_file_or_several(nested: str) -> None:
    assert str(_parse(nested, "--@runs", "runs/a")["runs"]) == "runs/a"
    several = _parse(nested, "--@runs", "runs/a", "a folder/b, c", "--@model", "a.ckpt", "b.ckpt")
    assert [str(run) for run in several["runs"]] == ["runs/a", "a folder/b, c"]
    assert several["model"] == ["a.ckpt", "b.ckpt"]


@DEPTHS
def test_several_values_of_an_option_that_takes_one_are_refused(
    nested: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        _parse(nested, "--@labels", "a.csv", "b.csv")
    assert stopped.value.code == 2
    assert f"error: --{nested}labels takes one value, but 2 are given: a.csv, b.csv" in capsys.readouterr().err


def test_values_of_arguments_without_a_type_are_refused_too(capsys: pytest.CaptureFixture[str]) -> None:
    parser = OptionParser(prog="e2e-abmilx tool")
    parser.add_subclass_arguments(Free, "free")
    with pytest.raises(SystemExit):
        parser.parse_args(["--free=Free", "--free.dict_kwargs.a", "1", "2"])
    shown = capsys.readouterr().err
    assert "␟" not in shown
    assert "--free.dict_kwargs.a takes one value, but 2 are given: 1, 2" in shown


@given(st.lists(st.text("ab ,'\"#:{}[]é/._-|>", max_size=8).map("x{}".format), min_size=2, max_size=5))
def test_words_of_a_list_stay_as_they_are_typed(words: list[str]) -> None:
    assert _parse("", "--model", *words)["model"] == words


@DEPTHS
def test_an_option_that_does_not_exist(nested: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    owner = "Data" if nested else "tool"
    with pytest.raises(SystemExit) as stopped:
        _parse(nested, "--@lables", "a.csv")
    assert stopped.value.code == 2
    expected = f"error: --{nested}lables is no option of {owner}; did you mean --{nested}labels?\n"
    assert capsys.readouterr().err.endswith(expected)


def test_a_setting_of_a_config_that_does_not_exist(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("data: {class_path: Data, init_args: {lables: a.csv}}")
    parser = OptionParser(prog="e2e-abmilx tool")
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(Data, "data")
    with pytest.raises(SystemExit):
        parser.parse_args(["--config", str(config)])
    assert "error: lables is no option of Data; did you mean labels?" in capsys.readouterr().err
