import pytest
import torch

from e2e_abmilx.cohort import Case
from e2e_abmilx.data.bag import EMPTY_BAG, Bag, BagError, BagSource, Target, collate, make_bag
from e2e_abmilx.data.jpegs import Jpegs


def _bag(patches: int, label: int | tuple[int, ...] = 0, *, last: bool = True) -> Bag:
    """A bag whose features and coordinates count its patches."""
    numbers = torch.arange(patches)
    coords = torch.stack([numbers, numbers], 1)
    target = Target(label, 12.5, 1)
    return make_bag(Case(f"c{patches}", ("a",)), target, coords.float(), torch.zeros_like(numbers), coords, last=last)


def test_padding_is_masked_and_empty() -> None:
    batch = collate([_bag(4), _bag(2, 1)])
    assert batch.patches.shape == (2, 4, 2)
    assert batch.mask.tolist() == [[True] * 4, [True, True, False, False]]
    assert not batch.patches[~batch.mask].any()
    assert not batch.coords[~batch.mask].any()
    assert (batch.label.tolist(), batch.time.tolist(), batch.event.tolist()) == ([0, 1], [12.5, 12.5], [1, 1])
    assert batch.cases == ("c4", "c2")


def test_real_patches_are_found_with_and_without_a_collated_batch() -> None:
    batch = collate([_bag(4), _bag(2)])
    assert batch.positions().tolist() == [0, 1, 2, 3, 4, 5]
    assert batch._replace(real=None).positions().tolist() == [0, 1, 2, 3, 4, 5]
    assert collate([_bag(2), _bag(4)]).positions().tolist() == [0, 1, 4, 5, 6, 7]


def test_a_head_needs_no_mask_without_padding() -> None:
    assert collate([_bag(3), _bag(3)]).head_mask is None
    padded = collate([_bag(4), _bag(2)])
    assert padded.head_mask is padded.mask
    uncollated = _bag(3)
    assert uncollated.head_mask is uncollated.mask  # the number of real patches is unknown


def test_a_batch_is_the_last_part_only_if_all_of_its_bags_are() -> None:
    assert collate([_bag(2)]).last
    assert not collate([_bag(2), _bag(2, last=False)]).last


def test_multi_labels_are_stacked() -> None:
    assert collate([_bag(2, (1, 0, -1)), _bag(3, (-1, -1, 1))]).label.tolist() == [[1, 0, -1], [-1, -1, 1]]


def test_an_empty_bag_of_a_case_is_refused() -> None:
    with pytest.raises(BagError, match="the bag of case c0 holds no patch"):
        collate([_bag(2), _bag(0)])


def test_the_empty_bag_of_no_case_is_collated() -> None:
    batch = collate([EMPTY_BAG])
    assert (batch.cases, batch.label.tolist(), batch.mask.shape) == ((), [-1], (1, 0))


def test_pixels_become_channels_first_without_a_copy() -> None:
    pixels = torch.randint(0, 255, (3, 8, 8, 3), dtype=torch.uint8)
    bag = _bag(3)._replace(patches=pixels)
    batch = collate([bag])
    assert batch.patches.shape == (1, 3, 3, 8, 8)
    assert batch.patches.data_ptr() == pixels.data_ptr()
    assert torch.equal(batch.patches[0].permute(0, 2, 3, 1), pixels)


def test_streams_are_joined_in_order() -> None:
    bags = [_bag(1)._replace(patches=Jpegs.of([b"a"])), _bag(2)._replace(patches=Jpegs.of([b"bc", b"d"]))]
    streams = collate(bags).patches
    assert isinstance(streams, Jpegs)
    assert bytes(streams.data.numpy()) == b"abcd"
    assert streams.sizes.tolist() == [1, 2, 1]


def test_the_size_of_other_sources_is_unknown() -> None:
    assert BagSource().largest_bytes == 0
