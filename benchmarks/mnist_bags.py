"""MNIST-bags of Ilse et al. 2018 (arXiv:1802.04712): does a bag of about ten digits contain a 9?

    python benchmarks/mnist_bags.py --bags 50 100 200 500 --seeds 5 --heads ABMIL ABMILX

Encoder and head are trained together, from the labels of the bags, by the library's task and Lightning's trainer. The
protocol is that of the paper: bag sizes are normal with mean 10 and variance 2, rounded; digits are drawn at random; a
bag is positive if one of them is a 9; encoder and optimizer are the paper's LeNet and Adam; the test set has 1,000 bags of
images that are in no other bag. The heads have their default sizes.

Two settings differ from the paper. A step takes four bags instead of one, so that a CPU makes only a quarter of the
updates. The learning rate is 2e-4 instead of 5e-4: at 5e-4 ABMILX needs about twice as many steps before its attention
finds the 9s. Learning rate and number of steps were chosen on training images.

Every run has the same number of steps and is tested with two of its epochs: that of the highest validation AUC, by which
the library chooses unless told otherwise, and that of the lowest validation loss. There are a quarter as many validation
bags as training bags, made of other images of MNIST's training set. The seed determines bags, initial weights and order;
the bags of a seed are the same for both heads, and a smaller training set is the first part of a larger one.

The test AUC is printed as mean ± standard error over seeds. The exit status is 1 if a mean at 200 bags, chosen by AUC, is
below 0.96.
"""

import argparse
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from e2e_abmilx import ABMIL, ABMILX, ClassificationTask
from e2e_abmilx.cohort import Case
from e2e_abmilx.data.bag import Bag, Target, collate, make_bag
from e2e_abmilx.training.callbacks import BestCheckpoint

DIGITS = Path(__file__).parents[2] / "shared/data/mnist/mnist_10k_10k.npz"
POSITIVE_DIGIT = 9
BAG_SIZE_MEAN, BAG_SIZE_VARIANCE = 10, 2
TEST_BAGS = 1000
VAL_FRACTION = 0.2  # of the training images

STEPS, BAGS_PER_STEP = 1200, 4
LEARNING_RATE, WEIGHT_DECAY = 2e-4, 1e-4
HEADS: dict[str, Callable[..., ABMIL | ABMILX]] = {"ABMIL": ABMIL, "ABMILX": ABMILX}
TARGET_BAGS, TARGET_AUC = 200, 0.96


class LeNet(nn.Module):
    """The paper's encoder of digits.

    Attributes:
        num_features: D.
        mean: Mean of MNIST's pixels.
        std: Standard deviation of MNIST's pixels.
    """

    num_features = 500
    mean, std = (0.1307,) * 3, (0.3081,) * 3

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 20, kernel_size=5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(20, 50, kernel_size=5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(50 * 4 * 4, self.num_features),
            nn.ReLU(),
        )

    def forward(self, digits: Tensor) -> Tensor:
        """Encode digits ``(M, 3, 28, 28)``, whose three channels are equal, as features ``(M, D)``."""
        features: Tensor = self.layers(digits[:, :1])
        return features


class DigitBags(Dataset[Bag]):
    """Bags of digits.

    Attributes:
        members: Rows of ``images`` in each bag.

    Args:
        images: Digits, uint8, shape ``(n, 28, 28)``.
        digits: Their labels, 0 … 9, shape ``(n,)``.
        rows: Rows of ``images`` to draw from, with replacement.
        count: Number of bags.
        rng: Draws the bags in order.
    """

    def __init__(
        self, images: np.ndarray, digits: np.ndarray, rows: np.ndarray, count: int, rng: np.random.Generator
    ) -> None:
        self.images, self.digits = images, digits
        self.members = [rng.choice(rows, _draw_size(rng)) for _ in range(count)]

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: int) -> Bag:
        """Return a bag without the dimension B."""
        rows = self.members[index]
        grey = torch.from_numpy(self.images[rows])
        return make_bag(
            Case(f"bag-{index}", slides=()),
            Target(label=int((self.digits[rows] == POSITIVE_DIGIT).any())),
            grey.unsqueeze(-1).expand(-1, -1, -1, 3),
            scale=torch.zeros(len(rows), dtype=torch.int64),
            coords=torch.zeros(len(rows), 2, dtype=torch.int64),
            last=True,
        )


def _draw_size(rng: np.random.Generator) -> int:
    return max(1, round(rng.normal(BAG_SIZE_MEAN, BAG_SIZE_VARIANCE**0.5)))


class Splits(NamedTuple):
    """Training, validation and test bags without common images."""

    train: DigitBags
    val: DigitBags
    test: DigitBags


def make_splits(file: Path, train_bags: int, seed: int) -> Splits:
    """Draw the bags of a run, each split with its own generator.

    Args:
        file: ``.npz`` of ``x_train``, ``y_train``, ``x_test`` and ``y_test``.
        train_bags: Number of training bags.
        seed: Seed of all draws.
    """
    mnist = np.load(file)
    train, test = (mnist["x_train"], mnist["y_train"]), (mnist["x_test"], mnist["y_test"])
    shuffled = np.random.default_rng([seed, 0]).permutation(len(train[0]))
    val_rows, train_rows = np.split(shuffled, [int(VAL_FRACTION * len(shuffled))])
    return Splits(
        DigitBags(*train, train_rows, train_bags, np.random.default_rng([seed, 1])),
        DigitBags(*train, val_rows, train_bags // 4, np.random.default_rng([seed, 2])),
        DigitBags(*test, np.arange(len(test[0])), TEST_BAGS, np.random.default_rng([seed, 3])),
    )


class TestAuc(NamedTuple):
    """Test AUC of a run, with the epoch of the highest validation AUC and with that of the lowest validation loss."""

    by_auc: float
    by_loss: float


def fit_and_test(head: str, splits: Splits, seed: int, folder: Path, *, steps: int = STEPS) -> TestAuc:
    """Train an encoder and a head, and test two of their epochs.

    Args:
        head: A name in ``HEADS``.
        splits: The bags.
        seed: Seed of weights, order and dropout.
        folder: Folder of the checkpoints.
        steps: Optimizer steps.
    """
    torch.manual_seed(seed)
    task = ClassificationTask(
        LeNet(),
        HEADS[head],
        num_outputs=2,
        optimizer=lambda params: torch.optim.Adam(params, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY),
    )
    loader = partial(DataLoader, collate_fn=collate)
    by_auc = BestCheckpoint()
    by_loss = ModelCheckpoint(folder, "lowest_loss", monitor="val/loss")
    trainer = Trainer(
        accelerator="auto",
        devices=1,
        max_steps=steps,
        default_root_dir=folder,
        callbacks=[by_auc, by_loss],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(task, loader(splits.train, batch_size=BAGS_PER_STEP, shuffle=True), loader(splits.val))
    test = loader(splits.test)
    found = [trainer.test(task, test, ckpt_path=best.best_model_path, verbose=False)[0] for best in (by_auc, by_loss)]
    return TestAuc(*(measured["test/auc"] for measured in found))


def main() -> int:
    """Run all seeds of all rows, print the table and check the target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bags", type=int, nargs="+", default=[50, 100, 200, 500], help="training bags")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--digits", type=Path, default=DIGITS, help="the .npz of images and labels")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    print(
        f"{'bags':>4}  {'head':8}{'AUC, by AUC':16}{'AUC, by loss':16}{'seconds per run':17}each seed, by AUC",
        flush=True,
    )
    missed = []
    for bags in options.bags:
        for head in options.heads:
            started = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                aucs = np.array(
                    [
                        fit_and_test(head, make_splits(options.digits, bags, seed), seed, Path(folder, str(seed)))
                        for seed in range(options.seeds)
                    ]
                )
            seconds = (time.perf_counter() - started) / options.seeds
            means, errors = aucs.mean(axis=0), aucs.std(axis=0, ddof=1) / options.seeds**0.5
            shown = "".join(f"{f'{mean:.3f} ± {error:.3f}':16}" for mean, error in zip(means, errors, strict=True))
            each = "  ".join(f"{auc:.3f}" for auc in aucs[:, 0])
            print(f"{bags:4}  {head:8}{shown}{seconds:<17.0f}{each}", flush=True)
            if bags == TARGET_BAGS and means[0] < TARGET_AUC:
                missed.append(f"{head} {means[0]:.3f} < {TARGET_AUC}")
    print("missed: " + "; ".join(missed) if missed else "all targets met")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
