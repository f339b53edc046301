"""What ``plan --probe`` says of memory and time, beside what a real training on this machine takes.

    python benchmarks/plan.py --config configs/demo.yaml --trainer.max_epochs 3
    python benchmarks/plan.py --config configs/ucsb.yaml --data.slides ucsb/ --data.labels ucsb/labels.csv --trainer.max_epochs 6

The slides are cached first; then the plan is made, the training run and tested in a temporary folder, and four steps of
it repeated under PyTorch's profiler, which records what the allocator of the CPU hands out. Predicted and measured peak
are those of tensors, with weights, states and bag. Time is that of the processor in this process, which also reads the
patches, so that other work on the machine does not count; the callbacks of the config are left out. The exit status is 1
if memory is more than 10 % off or time more than 25 %.
"""

import copy
import sys
import tempfile
import time

import torch
from torch.profiler import ProfilerActivity, profile

from e2e_abmilx.study import plan_probe
from e2e_abmilx.study.plan import make_plan
from e2e_abmilx.study.plan_config import Config, read_config
from e2e_abmilx.study.plan_memory import count_bytes
from e2e_abmilx.training.cli import run

MEMORY, TIME = 0.10, 0.25  # largest relative errors
STEPS = 4


def measure_peak(config: Config) -> float:
    """Return the peak of the tensors of a few training steps, GB; the data module has been set up by a plan."""
    task, data = copy.deepcopy(config.task), config.data
    trainer = config.make_trainer(max_steps=STEPS, max_epochs=-1, limit_val_batches=0)
    held = count_bytes([*task.parameters(), *task.buffers()])
    loader = data.train_dataloader()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        trainer.fit(task, loader)
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    changes = torch.tensor([event.nbytes() for event in events], dtype=torch.float64)
    return (held + float(changes.cumsum(0).max())) / 1e9


def measure_seconds(words: list[str]) -> float:
    """Return the seconds of the processor for a real training and its test."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        run(["fit", *words, "--trainer.default_root_dir", folder])
        return time.process_time() - started


def main() -> int:
    """Print predicted and measured figures; return the exit status."""
    words = [*sys.argv[1:], "--data.num_workers=0", "--trainer.callbacks=null"]
    if not sys.argv[1:] or "--help" in words:
        print(__doc__)
        return 0
    read_config(words).data.prepare_data()
    config = read_config([*words, "--probe"])
    plan_probe.clock = time.process_time
    plan = make_plan(config)
    rows = {
        "peak of tensors, MB": (plan["memory"]["peak"] * 1e3, measure_peak(config) * 1e3, MEMORY),
        "training and test, s": (plan["time"]["hours"] * 3600, measure_seconds(words), TIME),
    }
    print(f"{plan['training']['steps']} steps, {torch.get_num_threads()} threads, {plan['memory']['precision']}")
    print(f"{'':24}{'plan':>10}{'measured':>10}{'error':>8}{'allowed':>9}")
    missed = False
    for name, (predicted, measured, allowed) in rows.items():
        error = predicted / measured - 1
        missed |= abs(error) > allowed
        print(f"{name:24}{predicted:10.1f}{measured:10.1f}{error:8.1%}{allowed:9.0%}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
