"""How much an encoder can gain by training on these tiles at all, if it is told the class of every single tile.

    PYTHONPATH=benchmarks python -m learning.ceiling --sizes_px 32 64 --seeds 0 1 2 --weights efficientnet_lite0.safetensors

It prints the test AUC of single grey cancer tiles, adenocarcinoma against squamous: of a logistic regression on the frozen
ImageNet features, whose penalty is chosen on the validation tiles, and of the same encoder trained on the tiles. Bags give
an encoder less to learn from than the labels of tiles do. Where the second AUC is not above the first, end-to-end training
on bags cannot be better than frozen features, whatever the head.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from e2e_abmilx import TimmEncoder
from e2e_abmilx.encoders.augment import Normalize, RandomCrops
from e2e_abmilx.evaluation.bootstrap import Estimate, bootstrap
from e2e_abmilx.evaluation.estimators import Auroc
from learning.control import Table, control_auc
from learning.tiles import NORMAL, SOURCE, Tiles
from learning.weights import MODEL

EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 8, 64, 5e-4, 1e-2


class CancerTiles(NamedTuple):
    """The grey cancer tiles of a split by original image.

    Attributes:
        pixels: uint8, shape ``(T, 3, S, S)``.
        labels: 0 adenocarcinoma, 1 squamous, shape ``(T,)``.
        groups: Original image of each tile, T in number.
        splits: ``train``, ``val`` or ``test``, shape ``(T,)``.
    """

    pixels: Tensor
    labels: NDArray[np.int64]
    groups: list[str]
    splits: NDArray[np.str_]


def read_cancer_tiles(tiles: Tiles, size_px: int, seed: int) -> CancerTiles:
    """Return the cancer tiles of all splits, in the splits that the bags of a seed have."""
    numbers, splits = [], []
    for split, pool in tiles.split(seed).items():
        found = np.concatenate(pool.by_tissue[:NORMAL])
        numbers.append(found)
        splits += [split] * len(found)
    chosen = np.concatenate(numbers)
    pixels = torch.from_numpy(np.stack([tiles.grey(int(tile), size_px) for tile in chosen]))
    groups = tiles.group[chosen].tolist()
    return CancerTiles(pixels.permute(0, 3, 1, 2).contiguous(), tiles.tissue[chosen], groups, np.array(splits))


def frozen_auc(tiles: CancerTiles, encoder: TimmEncoder) -> Estimate:
    """Return the test AUC of a logistic regression on the features of an encoder, with an interval over images."""
    features = _encode(encoder, tiles.pixels, nn.Identity()).double().numpy()
    return control_auc(Table(tiles.groups, features, tiles.labels, tiles.splits))


def trained_auc(tiles: CancerTiles, encoder: TimmEncoder, *, seed: int, epochs: int = EPOCHS) -> Estimate:
    """Train the encoder and a linear classifier on the training tiles; return the test AUC of the last epoch."""
    torch.manual_seed(seed)
    classifier, normal = nn.Linear(encoder.num_features, 1), Normalize(encoder.mean, encoder.std)
    crops = RandomCrops(tiles.pixels.shape[-1], min_area=0.8)
    train = torch.from_numpy(np.flatnonzero(tiles.splits == "train"))
    parameters = [*encoder.parameters(), *classifier.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = epochs * (len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    encoder.train()
    for _ in range(epochs):
        for rows in torch.split(train[torch.randperm(len(train))], BATCH)[: len(train) // BATCH]:
            logits = classifier(encoder(normal(crops(tiles.pixels[rows])))).squeeze(1)
            labels = torch.from_numpy(tiles.labels[rows.numpy()]).float()
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(logits, labels).backward()
            optimizer.step()
            schedule.step()
    test = tiles.splits == "test"
    scores = _encode(encoder, tiles.pixels[torch.from_numpy(test)], classifier).squeeze(1)
    groups = [group for group, counted in zip(tiles.groups, test, strict=True) if counted]
    return bootstrap(Auroc(scores.numpy(), tiles.labels[test]), groups)


@torch.no_grad()
def _encode(encoder: TimmEncoder, pixels: Tensor, last: nn.Module) -> Tensor:
    encoder.eval()
    normal = Normalize(encoder.mean, encoder.std)
    return torch.cat([last(encoder(normal(part))) for part in torch.split(pixels, 256)])


def main() -> None:
    """Print one row per size and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes_px", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--weights", type=Path, required=True, help="the file of learning.weights")
    parser.add_argument("--source", type=Path, default=SOURCE)
    options = parser.parse_args()
    tiles = Tiles(options.source)
    print("size, px  seed  frozen features        trained on tiles       difference")
    for size_px in options.sizes_px:
        for seed in options.seeds:
            cancer = read_cancer_tiles(tiles, size_px, seed)
            frozen = frozen_auc(cancer, TimmEncoder(MODEL, weights=options.weights))
            trained = trained_auc(cancer, TimmEncoder(MODEL, weights=options.weights), seed=seed)
            found = [f"{auc.point:.3f} ({auc.low:.3f} to {auc.high:.3f})" for auc in (frozen, trained)]
            print(f"{size_px:8}  {seed:4}  {'  '.join(found)}  {trained.point - frozen.point:+.3f}", flush=True)


if __name__ == "__main__":
    main()
