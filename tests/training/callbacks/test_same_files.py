"""Machines that see other files than the first one are refused, by all processes and before anything is written."""

from pathlib import Path

import pandas as pd
import pytest
from node_runs import fit_on_nodes, write_config
from small_fits import make_data, make_task, make_trainer

from e2e_abmilx.training.callbacks.same_files import SameFiles


@pytest.mark.slow
def test_a_folder_that_only_one_node_sees_is_refused(cohort: Path, stores: Path, tmp_path: Path) -> None:
    """Each node has a working folder of its own, so a relative folder is another one on each."""
    config = write_config(tmp_path, cohort, stores)
    for ended in fit_on_nodes(config, "--trainer.default_root_dir", "run"):
        assert ended.status == 1
        assert "is not seen on" in ended.log
        assert "set trainer.default_root_dir to a folder on a disk that all machines share" in ended.log
    assert [list((tmp_path / f"node-{node}/run").iterdir()) for node in (0, 1)] == [[], []]


@pytest.mark.slow
def test_other_cases_on_one_node_are_refused(cohort: Path, stores: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, cohort, stores)
    table = pd.read_csv(cohort / "labels.csv", dtype=str)
    for node, rows in enumerate((table, table.iloc[1:])):
        (tmp_path / f"node-{node}").mkdir()
        rows.to_csv(tmp_path / f"node-{node}/labels.csv", index=False)
    for ended in fit_on_nodes(config, "--data.labels", "labels.csv"):
        assert ended.status == 1
        assert "has 23 cases" in ended.log
        assert "every machine needs the same label table, splits and cache" in ended.log
    assert not list((tmp_path / "run").iterdir())


def test_one_machine_is_not_compared(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, SameFiles())
    trainer.fit(make_task(), make_data(tmp_path))
    assert trainer.state.finished
    assert not list(tmp_path.glob(".*"))
