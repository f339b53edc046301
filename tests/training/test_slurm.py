"""The example for SLURM runs as it is, with an ``srun`` and an ``scontrol`` that do on one machine what SLURM's do."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from node_runs import ROOT, assert_same_run, environment, fit_on_nodes, free_port, start, wait_for, write_config

SCRIPT = ROOT / "configs/cluster/slurm.sbatch"

#: Starts one task on each of two "nodes", with the variables of srun; ends all when one fails, as --kill-on-bad-exit does.
SRUN = """#!/bin/bash
set -u
while [[ $1 == --* ]]; do options+=("$1"); shift; done
echo "${options[*]}" >> srun_options
[[ " ${options[*]} " == *" --kill-on-bad-exit=1 "* ]] || exit 99
export SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 SLURM_NTASKS=2 SLURM_LOCALID=0
for node in 0 1; do
    SLURM_PROCID=$node SLURM_NODEID=$node "$@" > "task-$node" 2>&1 &
    tasks+=($!)
done
echo "${tasks[*]}" > tasks
worst=0
for _ in 0 1; do
    wait -n || { worst=$?; sleep 5; kill -KILL "${tasks[@]}" 2> /dev/null; }
done
exit "$worst"
"""

#: Requeues as SLURM does: it kills the job, and starts it later.
SCONTROL = """#!/bin/bash
echo "$*" >> requeued
kill -KILL $(cat tasks)
"""


def _start(config: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start the script as sbatch does, from a copy, with the variables that sbatch sets."""
    folder = config.parent
    (folder / "bin").mkdir(exist_ok=True)
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    spooled = shutil.copy(SCRIPT, folder / "slurm_script")
    how = environment(
        config, PATH=f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        SLURM_JOB_ID="4242", SLURM_JOB_NAME="e2e-abmilx", SLURM_NNODES="2", SLURM_NTASKS_PER_NODE="1",
        SLURM_CPUS_PER_TASK="1", SLURM_NODELIST="127.0.0.1,127.0.0.2", MASTER_PORT=str(free_port()),
    )  # fmt: skip
    how.pop("MASTER_ADDR", None)
    words = ["bash", str(spooled), str(config), str(folder / "run"), "--data.num_workers", "0", *options]
    return start(words, folder, how)


def _logs(folder: Path) -> str:
    return "\n".join((folder / name).read_text(errors="replace") for name in ("log", "task-0", "task-1"))


def test_each_option_for_sbatch_has_a_reason() -> None:
    lines = SCRIPT.read_text().splitlines()
    options = [number for number, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert lines[0] == "#!/bin/bash"
    last_comment = next(number for number, line in enumerate(lines[1:], 1) if line and not line.startswith("#"))
    assert max(options) < last_comment  # sbatch reads no option below the first command
    bare = {"#SBATCH --gpus-per-node=4", "#SBATCH --open-mode=append"}  # the reason is that of the line above
    for number in options:
        assert re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", lines[number])
        assert lines[number - 1].startswith("# ") or lines[number] in bare
    assert "module " not in SCRIPT.read_text()
    subprocess.run(["bash", "-n", SCRIPT], check=True)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    done = subprocess.run(["bash", SCRIPT, "config.yaml"], capture_output=True, text=True, check=False)
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
