"""What a process says when another one of its run has ended."""

import subprocess
import sys
from pathlib import Path

import torch.distributed
from node_runs import ROOT

from e2e_abmilx.training.lost_process import explain_lost_process

#: Of two processes, the second dies before a sum over both; the first prints what it makes of its error.
DYING = """
import os, sys, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[3])
from e2e_abmilx.training.lost_process import explain_lost_process

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
dist.barrier()
if rank == 1:
    os._exit(9)
try:
    dist.all_reduce(torch.ones(1000))
except RuntimeError as error:
    print(explain_lost_process(error, "fit"))
os._exit(0)
"""


def test_the_error_of_a_process_that_waits_for_a_dead_one(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DYING]
    words = [str(tmp_path / "meeting"), str(ROOT)]
    other = subprocess.Popen([*command, "1", *words])
    done = subprocess.run([*command, "0", *words], capture_output=True, text=True, timeout=60, check=True)
    assert other.wait(60) == 9
    assert done.stdout.startswith("another process of this run has ended, or cannot be reached, so this one ends too")
    assert "with the same command with --ckpt_path last, which resumes the run" in done.stdout


def test_other_commands_are_not_resumed() -> None:
    error = torch.distributed.DistNetworkError("Broken pipe\nlong details")
    assert explain_lost_process(error, "test") == (
        "another process of this run has ended, or cannot be reached, so this one ends too; its own log says why. Start"
        " all processes with the same command again (DistNetworkError: Broken pipe)"
    )


def test_other_errors_are_left_alone() -> None:
    assert explain_lost_process(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "fit") is None
    assert explain_lost_process(torch.OutOfMemoryError("CUDA out of memory"), "fit") is None
