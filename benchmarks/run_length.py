"""Learning with bags of contiguous runs: the demo, from a bucket whose patches lie in random order.

``python benchmarks/run_length.py`` makes the demo's slides and stores, pushes them to a local S3 server, fits the demo from there
with each draw and seed, two fits at a time, and prints what each model reaches on the test cases. A run of 64 is as long
as a bag of the demo. Finished fits in ``--folder`` are not repeated. It takes about an hour on two cores.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from scipy.stats import tukey_hsd

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from local_bucket import local_bucket

from e2e_abmilx.cache import cache_slides
from e2e_abmilx.cache.push import push
from e2e_abmilx.synthetic import write_cohort

CACHE = "s3://cohorts/demo"
DRAWS = {
    "uniform": ["--data.draw=UniformDraw"],
    **{f"runs of {length}": ["--data.draw=RunDraw", f"--data.draw.run_length={length}"] for length in (1, 16, 64)},
}
MEASURES = ("test/auc", "test/balanced_accuracy", "test/loss")


def write_config(folder: Path) -> Path:
    """Write the demo's config, with its patches in the bucket."""
    config = yaml.safe_load((ROOT / "configs/demo.yaml").read_text())
    demo = config["data"]["init_args"]
    config["data"] = {
        "class_path": "SlideDataModule",
        "init_args": {
            "cache": CACHE, "labels": str(folder / "labels.csv"), "columns": {"label": "lesion"}, "patches_per_bag": 64,
            "batch_size": demo["batch_size"], "num_workers": 1,
        },
    }  # fmt: skip
    config["trainer"] |= {"callbacks": [], "accelerator": "cpu"}
    write_cohort(folder, slides=demo["num_slides"], side=demo["side"])
    cache_slides(folder / "slides", folder / "cache", mpp=tuple(demo["mpp"]), patch_size=demo["patch_size"], workers=2)
    path = folder / "run_length.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def fit(config: Path, name: str, seed: int) -> dict[str, float]:
    """Fit with a draw and a seed, unless that is done, and return the measures of the test."""
    run = config.parent / f"{name.replace(' ', '-')}-{seed}"
    if not (run / "predictions.csv").is_file():
        command = [sys.executable, "-m", "e2e_abmilx", "fit", "--config", str(config), "--seed_everything", str(seed)]
        command += ["--trainer.default_root_dir", str(run), *DRAWS[name]]
        how = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=how, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
    rows = pd.read_csv(run / "metrics.csv")
    return {measure: float(rows[measure].dropna().iloc[-1]) for measure in MEASURES}


def main(words: Sequence[str] | None = None) -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/run_length"))
    parser.add_argument("--seeds", type=int, default=6)
    arguments = parser.parse_args(words)
    folder = arguments.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    config = write_config(folder)
    jobs = [(name, seed) for seed in range(arguments.seeds) for name in DRAWS]
    with local_bucket(), ThreadPoolExecutor(2) as pool:
        assert push(folder / "cache", CACHE) == []
        results = dict(zip(jobs, pool.map(lambda job: fit(config, *job), jobs), strict=True))
    for measure in MEASURES:
        print(
            f"\n{measure:24}{''.join(f'seed {seed:<6}' for seed in range(arguments.seeds))}   mean   standard deviation"
        )
        for name in DRAWS:
            values = [results[name, seed][measure] for seed in range(arguments.seeds)]
            text = "".join(f"{value:<11.3f}" for value in values)
            print(f"{name:24}{text}   {np.mean(values):.3f}  {np.std(values, ddof=1):.3f}")
        print_differences({name: [results[name, seed][measure] for seed in range(arguments.seeds)] for name in DRAWS})


def print_differences(values: dict[str, list[float]]) -> None:
    """Print the differences of means from the uniform draw's, with Tukey's simultaneous 95 % intervals."""
    found = tukey_hsd(*values.values())
    interval = found.confidence_interval(0.95)
    for row, name in enumerate(values):
        if row:
            low, high = interval.low[row, 0], interval.high[row, 0]
            print(f"{name} − uniform: {found.statistic[row, 0]:+.3f} [{low:+.3f}, {high:+.3f}]")
    print(f"smallest p of all pairs: {found.pvalue[np.triu_indices(len(values), 1)].min():.2f}")


if __name__ == "__main__":
    main()
