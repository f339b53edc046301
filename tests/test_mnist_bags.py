"""The MNIST-bags benchmark draws bags as in its paper, and a short run learns."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from e2e_abmilx.data.bag import collate

SCRIPT = Path(__file__).parents[1] / "benchmarks/mnist_bags.py"


@pytest.fixture(scope="module")
def mnist_bags() -> ModuleType:
    """The imported script."""
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def digits(shared: Path) -> Path:
    """The file of the digits, which is not part of the project."""
    file = shared / "data/mnist/mnist_10k_10k.npz"
    if not file.is_file():
        pytest.skip("the digits (../shared/data/mnist) are not here")
    return file


def test_sizes_have_the_mean_and_variance_of_the_paper(mnist_bags: ModuleType, digits: Path) -> None:
    sizes = np.array([len(rows) for rows in mnist_bags.make_splits(digits, 5000, seed=0).train.members])
    assert sizes.mean() == pytest.approx(10, abs=0.1)
    assert sizes.var() == pytest.approx(2 + 1 / 12, abs=0.2)  # rounding adds 1/12
    assert sizes.min() >= 1


def test_a_bag_is_positive_if_it_has_a_nine(mnist_bags: ModuleType, digits: Path) -> None:
    mnist = dict(np.load(digits))
    splits = mnist_bags.make_splits(digits, 100, seed=0)
    for bags, part in zip(splits, ("train", "train", "test"), strict=True):
        labels = []
        for index, rows in enumerate(bags.members):
            bag = bags[index]
            assert np.array_equal(bag.patches[..., 0].numpy(), mnist[f"x_{part}"][rows])
            labels.append(int(bag.label))
            assert labels[-1] == any(mnist[f"y_{part}"][row] == 9 for row in rows)
        assert set(labels) == {0, 1}


def test_no_image_is_in_two_splits(mnist_bags: ModuleType, digits: Path) -> None:
    splits = mnist_bags.make_splits(digits, 500, seed=0)
    assert [len(bags) for bags in splits] == [500, 125, 1000]
    train, val, test = ({image.tobytes() for rows in bags.members for image in bags.images[rows]} for bags in splits)
    assert not train & val
    assert not train & test
    assert not val & test


def test_the_seed_determines_the_bags(mnist_bags: ModuleType, digits: Path) -> None:
    def rows(train_bags: int, seed: int) -> list[list[list[int]]]:
        splits = mnist_bags.make_splits(digits, train_bags, seed)
        return [[rows.tolist() for rows in bags.members] for bags in splits]

    small, again, large, other = rows(40, 0), rows(40, 0), rows(80, 0), rows(40, 1)
    assert small == again
    assert all(one != another for one, another in zip(small, other, strict=True))
    assert large[0][:40] == small[0], "a smaller training set is the first part of a larger one"
    assert large[2] == small[2], "the test bags do not depend on the size of the training set"


def test_the_encoder_gets_grey_digits(mnist_bags: ModuleType, digits: Path) -> None:
    bags = mnist_bags.make_splits(digits, 3, seed=0).train
    batch = collate([bags[index] for index in range(3)])
    assert batch.patches.shape[2:] == (3, 28, 28)
    assert batch.patches.dtype == torch.uint8
    assert batch.mask.sum(1).tolist() == [len(rows) for rows in bags.members]
    encoder = mnist_bags.LeNet()
    assert encoder(batch.patches[batch.mask].float()).shape == (int(batch.mask.sum()), encoder.num_features)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["ABMIL", "ABMILX"])
def test_training_on_a_hundred_bags_learns(mnist_bags: ModuleType, digits: Path, tmp_path: Path, head: str) -> None:
    splits = mnist_bags.make_splits(digits, 100, seed=0)
    assert mnist_bags.fit_and_test(head, splits, 0, tmp_path, steps=600).by_auc > 0.9
