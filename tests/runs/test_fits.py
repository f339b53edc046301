"""Fits are planned, resumed, skipped and refused; the processes here only write the files that a fit leaves."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e_abmilx.errors import InputError
from e2e_abmilx.runs.fits import Fit, count_folds, fit_all, plan_fit, plan_fold_fits, resolve

#: Stands for Python: writes its words, and predictions unless the folder holds a file `fails` or `writes_nothing`.
PYTHON = """\
#!/bin/sh
while [ "$1" != --trainer.default_root_dir ]; do shift; done
echo "$@" > "$2/words"
[ -e "$2/fails" ] && exit 7
[ -e "$2/writes_nothing" ] || touch "$2/predictions.csv"
"""


def _settings(**data: Any) -> dict[str, Any]:
    return {
        "seed_everything": 1,
        "data": {"class_path": "SlideDataModule", "init_args": {"fold": 0, "folds": 3, "splits": None, **data}},
        "trainer": {"max_epochs": 2, "default_root_dir": None},
    }


@pytest.fixture(autouse=True)
def _python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))


def test_data_without_folds_are_refused() -> None:
    settings = {"data": {"class_path": "mine.OneSplit", "init_args": {"seed": 0}}}
    with pytest.raises(InputError, match=r"mine.OneSplit has no setting fold; use a data module that has one"):
        count_folds(settings)


def test_settings_are_those_of_the_config_and_the_options() -> None:
    demo = Path(__file__).parents[2] / "configs/demo.yaml"
    settings = resolve(["--config", str(demo), "--data.folds=4", "--trainer.max_epochs", "1"])
    assert settings["data"]["init_args"]["num_slides"] == 144
    assert settings["trainer"]["max_epochs"] == 1
    assert count_folds(settings) == 4


@pytest.mark.parametrize("words", [["--ckpt_path", "last.ckpt"], ["--ckpt_path=last.ckpt"]])
def test_the_checkpoint_of_one_run_is_refused(words: list[str]) -> None:
    with pytest.raises(InputError, match=r"each run resumes from its own last.ckpt; leave it out"):
        resolve(words)


def test_folds_are_counted_in_the_folder_of_splits(tmp_path: Path) -> None:
    assert count_folds(_settings()) == 3
    for number in (0, 1, 3):  # files after a gap do not count
        (tmp_path / f"splits_{number}.csv").touch()
    assert count_folds(_settings(splits=str(tmp_path))) == 2
    with pytest.raises(InputError, match="is not a folder with one file of splits per fold"):
        count_folds(_settings(splits=str(tmp_path / "absent")))


def test_each_fold_is_fitted_with_the_settings_as_planned(tmp_path: Path) -> None:
    settings, root = _settings(), tmp_path / "run"
    fits = plan_fold_fits(settings, root)
    assert fits == [Fit(root / f"fold-{fold}", root / "crossval.yaml", fold) for fold in range(3)]
    assert yaml.safe_load((root / "crossval.yaml").read_text()) == settings
    fit_all(fits)
    for fold, fit in enumerate(fits):
        words = f"--trainer.default_root_dir {fit.folder} --data.fold {fold}\n"
        assert (fit.folder / "words").read_text() == words


def test_finished_fits_are_skipped_and_interrupted_ones_resumed(tmp_path: Path) -> None:
    finished, interrupted = (plan_fit(_settings(), tmp_path / name) for name in ("finished", "interrupted"))
    (finished.folder / "predictions.csv").touch()
    (interrupted.folder / "last.ckpt").touch()
    fit_all([finished, interrupted])
    assert not (finished.folder / "words").exists()
    assert (interrupted.folder / "words").read_text().endswith(f"--ckpt_path {interrupted.folder / 'last.ckpt'}\n")


def test_failed_fits_do_not_stop_the_others_and_are_named(tmp_path: Path) -> None:
    fits = [plan_fit(_settings(), tmp_path / name) for name in "abc"]
    (tmp_path / "a/fails").touch()
    (tmp_path / "b/writes_nothing").touch()
    with pytest.raises(InputError, match="2 of 3 fits failed") as failed:
        fit_all(fits)
    assert f"{tmp_path / 'a'} (exit status 7), {tmp_path / 'b'} (it left no predictions.csv)" in str(failed.value)
    assert (tmp_path / "c/predictions.csv").exists()


@pytest.mark.parametrize("left", ["last.ckpt", "predictions.csv"])
def test_a_run_with_other_settings_is_refused(left: str, tmp_path: Path) -> None:
    then = _settings()
    fit = plan_fit(then, tmp_path / "run")
    changed = then | {"seed_everything": 2, "trainer": {"max_epochs": 5, "default_root_dir": "elsewhere"}}
    (fit.folder / "fit.yaml").write_text(yaml.safe_dump(then))
    plan_fit(changed, fit.folder)  # nothing is fitted yet
    (fit.folder / left).touch()
    plan_fit(_settings(fold=2, num_workers=4), fit.folder)  # these do not change the result
    planned = (fit.folder / "planned.yaml").read_text()
    with pytest.raises(
        InputError, match=r"other settings:\n  seed_everything: 1 there, 2 now\n  trainer.max_epochs: 2"
    ):
        plan_fit(changed, fit.folder)
    with pytest.raises(InputError, match=r"  data.patches_per_bag: absent there, 4 now\nname another folder"):
        plan_fit(_settings(patches_per_bag=4), fit.folder)
    assert (fit.folder / "planned.yaml").read_text() == planned
