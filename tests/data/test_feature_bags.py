from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from e2e_abmilx.cohort import Case
from e2e_abmilx.data.bag import BagError, Target, collate
from e2e_abmilx.data.feature_bags import FeatureBags, RandomFeatureBags, check_features
from e2e_abmilx.data.features import FeatureFolder
from e2e_abmilx.data.inputs import FeatureInput
from e2e_abmilx.data.samplers import Draw

SIZES = {"a": 5, "b": 8, "c": 3}
CASES = [Case("two", ("b", "a")), Case("one", ("c",))]
TARGETS = [Target(1, 12.5, 1), Target(0)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> FeatureFolder:
    """Slides whose features and coordinates encode slide and patch."""
    path = tmp_path_factory.mktemp("features")
    for number, (slide, size) in enumerate(SIZES.items()):
        coords = torch.stack([torch.full((size,), number), torch.arange(size)], dim=1)
        torch.save({"features": coords.float(), "coords": coords}, path / f"{slide}.pt")
    return FeatureFolder(path)


def _draw(folder: FeatureFolder, draw: Draw, max_patches: int | None, seed: int = 0) -> list[list[int]]:
    bag = RandomFeatureBags(CASES, TARGETS, folder, max_patches=max_patches, seed=seed)[draw]
    assert torch.equal(bag.patches, bag.coords.float())
    found: list[list[int]] = bag.coords.tolist()
    return found


def test_by_default_a_bag_holds_all_patches_of_a_case(folder: FeatureFolder) -> None:
    bag = RandomFeatureBags(CASES, TARGETS, folder, max_patches=None, seed=0)[Draw(0, 0)]
    assert bag.coords.tolist() == [[1, k] for k in range(8)] + [[0, k] for k in range(5)]
    assert (bag.label, bag.time, bag.event, bag.cases, bag.last) == (1, 12.5, 1, ("two",), True)
    assert bag.mask.all()
    assert not bag.scale.any()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(most=st.integers(1, 20), epoch=st.integers(0, 5), seed=st.integers(0, 5), case=st.integers(0, 1))
def test_draws_are_functions_of_seed_epoch_and_case(
    folder: FeatureFolder, most: int, epoch: int, seed: int, case: int
) -> None:
    found = _draw(folder, Draw(epoch, case), most, seed)
    everything = _draw(folder, Draw(0, case), None)
    assert len(found) == min(most, len(everything))
    assert [patch for patch in everything if patch in found] == found  # in order and without repetition
    assert _draw(folder, Draw(epoch, case), most, seed) == found


def test_draws_differ_and_are_uniform(folder: FeatureFolder) -> None:
    draws = [_draw(folder, Draw(epoch, 0, repeat), 4) for epoch in range(300) for repeat in range(2)]
    assert len({str(draw) for draw in draws}) > 300
    counts = Counter(str(patch) for draw in draws for patch in draw)
    assert len(counts) == 13
    expected, spread = 600 * 4 / 13, np.sqrt(600 * 4 / 13 * 9 / 13)
    assert all(abs(count - expected) < 5 * spread for count in counts.values())


def test_draws_depend_on_the_name_of_a_case_not_its_position(folder: FeatureFolder) -> None:
    other = RandomFeatureBags(CASES[::-1], TARGETS[::-1], folder, max_patches=4, seed=0)[Draw(2, 1)]
    assert other.coords.tolist() == _draw(folder, Draw(2, 0), 4)


def test_each_slide_is_evaluated_once(folder: FeatureFolder) -> None:
    bags = FeatureBags(CASES, TARGETS, folder)
    assert [(part.case, part.slide, part.stop, part.last) for part in bags.parts] == [
        (0, "b", 8, False), (0, "a", 5, True), (1, "c", 3, True)
    ]  # fmt: skip
    assert len(bags) == 3
    for part, index in zip(bags.parts, range(3), strict=True):
        bag = bags[index]
        assert (bag.cases, bag.last) == ((CASES[part.case].id,), part.last)
        assert torch.equal(bag.patches, folder.open(part.slide).read())
        assert torch.equal(bag.coords.float(), bag.patches)


def test_padding_is_masked(folder: FeatureFolder) -> None:
    bags = RandomFeatureBags(CASES, TARGETS, folder, max_patches=None, seed=0)
    batch = collate([bags[Draw(0, 0)], bags[Draw(0, 1)]])
    assert batch.patches.shape == (2, 13, 2)
    assert batch.mask.sum(1).tolist() == [13, 3]
    assert batch.coords[1, :3].tolist() == [[2, 0], [2, 1], [2, 2]]


def test_unknown_coordinates(tmp_path: Path) -> None:
    torch.save(torch.ones(4, 2), tmp_path / "a.pt")
    bag = FeatureBags([Case("a", ("a",))], [Target(0)], FeatureFolder(tmp_path))[0]
    assert bag.coords.tolist() == [[-1, -1]] * 4


def test_files_must_have_the_same_number_of_features(folder: FeatureFolder, tmp_path: Path) -> None:
    assert check_features(CASES, folder) == FeatureInput(2)
    torch.save(torch.ones(4, 2), tmp_path / "a.pt")
    torch.save(torch.ones(4, 3), tmp_path / "b.pt")
    with pytest.raises(
        BagError, match=r"a\.pt has 2 features per patch, .*b\.pt has 3 features per patch; extract all slides with one"
    ):
        check_features(CASES[:1], FeatureFolder(tmp_path))
