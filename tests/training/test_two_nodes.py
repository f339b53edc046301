"""A fit on two nodes equals one on one machine; when a process dies the others end, and the run is resumed."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from node_runs import EPOCHS, STEPS, assert_same_run, fit_alone, fit_on_nodes, write_config

from e2e_abmilx.training.callbacks.run_folder import RUN_FILES

KILL = "--trainer.callbacks+={{class_path: killer.Kill, init_args: {{step: {step}, rank: {rank}, node: {node}}}}}"


@pytest.fixture(scope="module")
def whole(cohort: Path, stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on two nodes that nothing interrupts."""
    config = write_config(tmp_path_factory.mktemp("whole"), cohort, stores)
    ended = fit_on_nodes(config)
    assert [one.status for one in ended] == [0, 0], ended[0].log[-3000:]
    assert "INFO: cases: 12 train, 4 val, 8 test" in ended[0].log
    assert "INFO: " not in ended[1].log  # only the first process reports
    return config.parent / "run"


@pytest.mark.slow
def test_processes_that_the_trainer_would_leave_out_are_refused(cohort: Path, stores: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, cohort, stores)
    for ended in fit_on_nodes(config, num_nodes=1):
        assert ended.status == 1
        assert "error: torchrun started 2 processes, and the trainer is for 1: trainer.num_nodes is 1" in ended.log
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.slow
def test_two_nodes_are_one_machine_with_two_devices(whole: Path, cohort: Path, stores: Path, tmp_path: Path) -> None:
    """Bit for bit: the same ranks draw the same bags, and gloo adds two gradients in one way only."""
    fit_alone(write_config(tmp_path, cohort, stores, devices=2, strategy="ddp"))
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.slow
def test_two_nodes_are_one_process_with_larger_batches(whole: Path, cohort: Path, stores: Path, tmp_path: Path) -> None:
    """Up to rounding: the mean over four bags is added up in another order."""
    fit_alone(write_config(tmp_path, cohort, stores, batch_size=4, devices=1))
    one, two = (pd.read_csv(run / "predictions.csv", dtype={"case": str}) for run in (tmp_path / "run", whole))
    assert list(one["case"]) == list(two["case"])
    scores = [name for name in one.columns if name.startswith("probability")]
    assert scores
    np.testing.assert_allclose(two[scores], one[scores], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_files_are_written_once_and_nothing_on_the_other_node(whole: Path) -> None:
    assert {path.name for path in whole.iterdir()} <= set(RUN_FILES)
    cases = pd.read_csv(whole / "predictions.csv")["case"]
    assert len(cases) == len(set(cases)) == len(list((whole / "attention").iterdir())) == 8
    assert list((whole / "figures").iterdir())
    for node in (0, 1):
        assert [path.name for path in (whole.parent / f"node-{node}").iterdir()] == ["log"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "rank", "node"),
    [(STEPS + 1, 1, False), (1, 1, True), (STEPS, 0, False)],  # in an epoch, in the first, at the end of one
)
def test_a_killed_process_ends_the_run_and_it_is_resumed(
    step: int, rank: int, node: bool, whole: Path, cohort: Path, stores: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path, cohort, stores)
    ended = fit_on_nodes(config, KILL.format(step=step, rank=rank, node=str(node).lower()))
    killed_at = float((tmp_path / f"node-{rank}/killed_at").read_text())
    survivor = ended[1 - rank]
    assert survivor.status == 1
    assert "error: another process of this run has ended" in survivor.log
    assert "with --ckpt_path last, which resumes the run" in survivor.log
    assert (tmp_path / f"node-{1 - rank}/log").stat().st_mtime - killed_at < 15
    assert ended[rank].status == (-9 if node else 1)
    assert step < EPOCHS * STEPS
    shutil.copytree(tmp_path / "run", tmp_path / "stopped")
    again = fit_on_nodes(config, "--ckpt_path", "last")
    assert [one.status for one in again] == [0, 0], again[0].log[-3000:]
    assert_same_run(tmp_path / "run", whole)
