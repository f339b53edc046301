"""Time a bootstrap of 1,000 resamples over 2,000 cases, against calling torchmetrics or lifelines on each resample.

The time of the library is measured on a few resamples and scaled to 1,000. Our time includes the creation of the
estimator, with its sorting.

Run ``python benchmarks/bootstrap.py``, which takes a minute on one core. The exit status is 1 if a target is missed.
"""

import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from lifelines.utils import concordance_index
from torchmetrics.functional import classification

from e2e_abmilx.evaluation.bootstrap import bootstrap
from e2e_abmilx.evaluation.concordance import Concordance
from e2e_abmilx.evaluation.estimators import (
    Accuracy,
    Auroc,
    BalancedAccuracy,
    CohenKappa,
    Estimator,
    MacroF1,
    QuadraticWeightedKappa,
)

CASES, CLASSES, N_RESAMPLES, LIBRARY_RESAMPLES = 2000, 6, 1000, 20
TARGET_SECONDS = 5.0

torch.manual_seed(0)
LABEL = torch.randint(0, CLASSES, (CASES,))
PROBABILITY = (torch.randn(CASES, CLASSES) + torch.eye(CLASSES)[LABEL]).softmax(1)
GUESS = PROBABILITY.argmax(1)
BINARY = (LABEL > 2).long()
RISK = torch.randn(CASES)
TIME = (RISK.neg().exp() * torch.rand(CASES).log().neg() * 30).round(decimals=1)
EVENT = torch.randint(0, 2, (CASES,))

Row = tuple[Callable[[], Estimator], Callable[[torch.Tensor], object]]
ROWS: dict[str, Row] = {
    "AUC, binary": (
        lambda: Auroc(PROBABILITY[:, 0], BINARY),
        lambda rows: classification.binary_auroc(PROBABILITY[rows, 0], BINARY[rows]),
    ),
    "AUC, 6 classes": (
        lambda: Auroc(PROBABILITY, LABEL),
        lambda rows: classification.multiclass_auroc(PROBABILITY[rows], LABEL[rows], CLASSES),
    ),
    "accuracy": (
        lambda: Accuracy(GUESS, LABEL),
        lambda rows: classification.multiclass_accuracy(GUESS[rows], LABEL[rows], CLASSES, average="micro"),
    ),
    "balanced accuracy": (
        lambda: BalancedAccuracy(GUESS, LABEL),
        lambda rows: classification.multiclass_accuracy(GUESS[rows], LABEL[rows], CLASSES),
    ),
    "macro F1": (
        lambda: MacroF1(GUESS, LABEL),
        lambda rows: classification.multiclass_f1_score(GUESS[rows], LABEL[rows], CLASSES),
    ),
    "kappa": (
        lambda: CohenKappa(GUESS, LABEL),
        lambda rows: classification.multiclass_cohen_kappa(GUESS[rows], LABEL[rows], CLASSES),
    ),
    "QWK": (
        lambda: QuadraticWeightedKappa(GUESS, LABEL),
        lambda rows: classification.multiclass_cohen_kappa(GUESS[rows], LABEL[rows], CLASSES, weights="quadratic"),
    ),
    "C-index": (
        lambda: Concordance(RISK, TIME, EVENT),
        lambda rows: concordance_index(TIME[rows].numpy(), -RISK[rows].numpy(), EVENT[rows].numpy()),
    ),
}


def seconds_of(run: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> int:
    """Measure and print all rows, and print which targets were missed."""
    cases = [f"case {number}" for number in range(CASES)]
    resamples = np.random.default_rng(0).integers(CASES, size=(LIBRARY_RESAMPLES, CASES))
    print(f"{N_RESAMPLES} resamples of {CASES} cases, {torch.get_num_threads()} threads")
    print(f"{'':20}{'seconds':>9}{'library':>9}{'ratio':>7}")
    missed = []
    for name, (make, library) in ROWS.items():
        library(torch.from_numpy(resamples[0]))  # loading and compiling in the first call does not count
        ours = seconds_of(lambda make=make: bootstrap(make(), cases, n_resamples=N_RESAMPLES))
        theirs = seconds_of(lambda library=library: [library(torch.from_numpy(rows)) for rows in resamples])
        theirs *= N_RESAMPLES / LIBRARY_RESAMPLES
        print(f"{name:20}{ours:9.2f}{theirs:9.2f}{theirs / ours:7.1f}", flush=True)
        if ours > TARGET_SECONDS:
            missed.append(name)
    print(f"Missed: {', '.join(missed)}" if missed else f"All below {TARGET_SECONDS:.0f} seconds.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
