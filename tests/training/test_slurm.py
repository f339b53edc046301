"""The example for SLURM runs as it is, with an ``srun`` and an ``scontrol`` that do on one machine what SLURM's do."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from node_runs import SLURM_SCRIPT, assert_same_run, fit_on_nodes, submit, wait_for, write_config


def _start(config: Path, *options: str) -> subprocess.Popen[bytes]:
    return submit([str(config), str(config.parent / "run"), "--data.num_workers", "0", *options], config)


def _logs(folder: Path) -> str:
    return "\n".join((folder / name).read_text(errors="replace") for name in ("log", "task-0", "task-1"))


def test_each_option_for_sbatch_has_a_reason() -> None:
    lines = SLURM_SCRIPT.read_text().splitlines()
    options = [number for number, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert lines[0] == "#!/bin/bash"
    last_comment = next(number for number, line in enumerate(lines[1:], 1) if line and not line.startswith("#"))
    assert max(options) < last_comment  # sbatch reads no option below the first command
    bare = {"#SBATCH --gpus-per-node=4", "#SBATCH --open-mode=append"}  # the reason is that of the line above
    for number in options:
        assert re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", lines[number])
        assert lines[number - 1].startswith("# ") or lines[number] in bare
    assert "module " not in SLURM_SCRIPT.read_text()
    subprocess.run(["bash", "-n", SLURM_SCRIPT], check=True)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    done = subprocess.run(["bash", SLURM_SCRIPT, "config.yaml"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "give the folder of the run" in done.stderr


@pytest.mark.slow
def test_a_job_near_its_time_limit_is_requeued_and_goes_on(cohort: Path, stores: Path, tmp_path: Path) -> None:
    """It equals a run of torchrun that nothing interrupts, bit for bit."""
    whole = write_config(tmp_path / "whole", cohort, stores)
    assert [one.status for one in fit_on_nodes(whole)] == [0, 0]
    config = write_config(tmp_path / "job", cohort, stores)
    folder, last = config.parent, config.parent / "run/last.ckpt"
    job = _start(config, "--trainer.callbacks+=killer.Slow")
    while not last.exists() and job.poll() is None:
        time.sleep(0.1)
    os.kill(job.pid, signal.SIGUSR1)  # to the batch script alone, as --signal=B:USR1 does
    ended = wait_for(job, folder)
    assert ended.status != 0
    assert "the time limit is near: the job is requeued" in ended.log
    assert (folder / "requeued").read_text() == "requeue 4242\n"
    assert not (folder / "run/predictions.csv").exists()
    assert not list((folder / "run").glob("hpc_ckpt*"))
    again = wait_for(_start(config), folder)
    assert again.status == 0, _logs(folder)[-3000:]
    assert f"Restored all states from the checkpoint at {last}" in _logs(folder)
    assert_same_run(folder / "run", whole.parent / "run")


@pytest.mark.slow
def test_a_killed_task_ends_the_job(cohort: Path, stores: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, cohort, stores)
    started = time.monotonic()
    kill = "--trainer.callbacks+={class_path: killer.Kill, init_args: {step: 4}}"
    ended = wait_for(_start(config, kill), tmp_path)
    assert ended.status != 0
    assert time.monotonic() - started < 60
    assert "error: another process of this run has ended" in (tmp_path / "task-0").read_text()
    assert (tmp_path / "srun_options").read_text() == "--kill-on-bad-exit=1 --cpus-per-task=1\n"


@pytest.mark.slow
def test_tasks_that_the_trainer_would_leave_out_are_refused(cohort: Path, stores: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, cohort, stores)
    ended = wait_for(_start(config, "--trainer.num_nodes", "1", "--trainer.strategy", "auto"), tmp_path)
    assert ended.status != 0
    assert "error: srun started 2 processes, and the trainer is for 1" in _logs(tmp_path)
    assert not list((tmp_path / "run").iterdir())
