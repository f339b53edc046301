"""The comparison of heads and kinds of training on bags of grey lung tiles: all fits, and the table of their results.

    PYTHONPATH=benchmarks python -m learning.sweep --out runs/learning

It writes the ImageNet weights, one set of bags per seed, and their frozen features. It tunes the learning rate of each row
on the validation bags of the first seed, trying the same rates for all rows, fits each row with every seed, and prints the
table. Each seed has original images, bags, initial weights and draws of its own. Within a run, the best epoch is that of
the highest validation AUC. The test bags decide nothing.

The command may be started several times at once, to share the fits, and again after an interruption: it keeps what is
finished.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import yaml

from e2e_abmilx.errors import InputError
from e2e_abmilx.io.locks import hold
from e2e_abmilx.runs.variants import read_variants
from learning.bags import write_bags
from learning.results import Row, print_table, validation_of
from learning.weights import write_weights

#: Options of fit by the name of a row.
Options = Mapping[str, dict[str, Any]]

HERE = Path(__file__).parent
TRAININGS = ("end_to_end", "frozen", "scratch")
RATE = "model.optimizer.lr"
RATES = (3e-4, 1e-3)  # learning rates that each row tries
#: What the bags of every seed have in common.
BAGS: dict[str, Any] = {"witness_rate": 0.03, "size_px": 32, "train": 120, "val": 60, "test": 160}


def sweep(
    out: Path, *, trainings: Sequence[str] = TRAININGS, names: Sequence[str] = (), seeds: Sequence[int] = range(5)
) -> list[Row]:
    """Fit what is not fitted yet, and return the rows with their tuned learning rates.

    Args:
        out: Folder of weights, bags and runs.
        trainings: Names of configs beside this file.
        names: Rows of ``variants.yaml``; all if none is named.
        seeds: Seeds of bags and runs; the rates are tuned on the first.

    Raises:
        InputError: A row is unknown, or fits failed.
    """
    variants = {variant.name: variant.options for variant in read_variants(HERE / "variants.yaml")}
    unknown = set(names) - set(variants)
    if unknown:
        raise InputError(f"{min(unknown)!r} is no row of variants.yaml, which has {', '.join(variants)}")
    chosen = {name: variants[name] for name in names or variants}
    for seed in seeds:
        _prepare(out, seed, features="frozen" in trainings)
    return [row for training in trainings for row in _sweep(out, training, chosen, tuple(seeds))]


def _sweep(out: Path, training: str, rows: Options, seeds: tuple[int, ...]) -> list[Row]:
    """Tune and fit the rows of one kind of training."""
    tried = {_name(row, rate): {**options, RATE: rate} for row, options in rows.items() for rate in RATES}
    folders = _compare(out, training, tried, seeds[0])
    best = {row: max(RATES, key=lambda rate: validation_of(folders[_name(row, rate)])) for row in rows}
    tuned = {_name(row, rate): {**rows[row], RATE: rate} for row, rate in best.items()}
    runs = [_compare(out, training, tuned, seed) for seed in seeds]
    bags = tuple(out / f"bags/seed-{seed}" for seed in seeds)
    return [
        Row(training, row, rate, tuple(folders[_name(row, rate)] for folders in runs), bags)
        for row, rate in best.items()
    ]


def _prepare(out: Path, seed: int, *, features: bool) -> None:
    """Write weights, bags and, if they are needed, features; another process waits for the one that writes."""
    bags, weights = out / f"bags/seed-{seed}", _weights(out)
    with hold(out / "prepare.lock", wait=True):
        if not weights.exists():
            write_weights(weights)
        labels = write_bags(bags, seed=seed, **BAGS)
        if features and not (bags / "features").is_dir():
            data = [f"--data.cache={bags / 'cache'}", f"--data.labels={labels}", "--data.seed=0"]
            _run("predict", f"--config={HERE / 'end_to_end.yaml'}", f"--model.encoder.weights={weights}", *data,
                 "--trainer.callbacks+=FeatureWriter", f"--trainer.default_root_dir={bags}")  # fmt: skip


def _compare(out: Path, training: str, rows: Options, seed: int) -> dict[str, Path]:
    """Fit rows with one seed and its bags; return the folders of the runs."""
    bags, runs = out / f"bags/seed-{seed}", out / "runs"
    weights = [f"--model.encoder.weights={_weights(out)}"] * (training == "end_to_end")
    data = [f"--data.features={bags / 'features'}"] if training == "frozen" else [f"--data.cache={bags / 'cache'}"]
    with NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        yaml.safe_dump(dict(rows), file, allow_unicode=True, sort_keys=False)
        file.flush()
        _run("compare", f"--configs={HERE / training}.yaml", f"--variants={file.name}", f"--seeds={seed}",
             f"--out={runs}", f"--data.labels={bags / 'labels.csv'}", *data, *weights)  # fmt: skip
        folders = {variant.name: variant.folder for variant in read_variants(Path(file.name))}
    return {row: runs / training / folders[row] / f"seed-{seed}" for row in rows}


def _name(row: str, rate: float) -> str:
    return f"{row}, lr {rate:g}"


def _weights(out: Path) -> Path:
    return out / "efficientnet_lite0.safetensors"


def _run(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "e2e_abmilx", *words], check=True)


def main() -> None:
    """Fit what is not fitted yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of weights, bags and runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--trainings", nargs="+", choices=TRAININGS, default=list(TRAININGS))
    parser.add_argument("--rows", nargs="+", default=[], help="rows of variants.yaml (default: all)")
    options = parser.parse_args()
    print_table(sweep(options.out, trainings=options.trainings, names=options.rows, seeds=options.seeds))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
