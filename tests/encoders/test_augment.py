"""Random crops, flips, shifts and normalisation of patches."""

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import ks_2samp

from e2e_abmilx.encoders.augment import GroupedCrops, Normalize, RandomCrops
from e2e_abmilx.encoders.resample import Boxes, crop_and_resize


def test_evaluation_resizes_the_whole_patch() -> None:
    patches = torch.randint(0, 256, (3, 3, 40, 40), dtype=torch.uint8)
    crops = RandomCrops(40).eval()
    assert torch.equal(crops(patches), patches)
    smaller = RandomCrops(20).eval()(patches)
    expected = F.interpolate(patches.float(), (20, 20), mode="bilinear", antialias=True)
    assert smaller.dtype == torch.uint8
    assert torch.equal(smaller.float(), expected.round())


def test_crops_of_the_full_area_stay_within_the_patch() -> None:
    torch.manual_seed(0)
    patches = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    whole = RandomCrops(16, min_area=1.0, flips=False)
    # with an area of 1 only the aspect ratio varies, and a crop stays within the patch
    assert whole(patches).min() >= 0
    assert whole(patches).max() <= 255


def test_each_patch_has_its_own_crop_and_flip() -> None:
    torch.manual_seed(0)
    ramp = torch.arange(0, 256, 8, dtype=torch.uint8).expand(1, 3, 32, 32)
    crops = RandomCrops(16, min_area=0.25)(ramp.repeat(200, 1, 1, 1))
    assert crops.shape == (200, 3, 16, 16)
    left, right = crops[:, 0, 8, 0] / 8, crops[:, 0, 8, -1] / 8
    mirrored = (left > right).float().mean()
    assert 0.35 < mirrored < 0.65
    width = (left - right).abs() / 31
    assert width.min() > 0.35
    assert width.max() <= 1.0
    assert len(torch.unique(left)) > 50


def test_crops_follow_the_torch_seed() -> None:
    patches = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    results = []
    for _ in range(2):
        torch.manual_seed(7)
        results.append(RandomCrops(8)(patches))
    assert torch.equal(*results)


def test_min_area_must_be_a_fraction() -> None:
    with pytest.raises(ValueError, match=r"min_area is 0.*\(0, 1\]"):
        RandomCrops(8, min_area=0)


def test_sizes_are_drawn_as_by_torchvision() -> None:
    """Widths, heights and offsets of RandomResizedCrop, compared by the two-sample test of Kolmogorov and Smirnov."""
    transforms = pytest.importorskip("torchvision.transforms.v2")
    torch.manual_seed(0)
    for min_area, side in ((0.25, 256), (0.08, 40)):
        boxes = RandomCrops(8, min_area=min_area).draw(4000, side, torch.device("cpu"))
        theirs = transforms.RandomResizedCrop(8, scale=(min_area, 1))
        drawn = [theirs.make_params([torch.zeros(3, side, side)]) for _ in range(4000)]
        for name in ("left", "top", "width", "height"):
            ours = getattr(boxes, name)
            assert torch.equal(ours, ours.round())
            assert ks_2samp(ours.numpy(), [box[name] for box in drawn]).pvalue > 1e-3
        assert (boxes.left + boxes.width).max() <= side
        assert (boxes.width * boxes.height).min() >= min_area * side**2 - 2 * side  # whole pixels


def test_few_crops_keep_a_full_side() -> None:
    torch.manual_seed(0)
    boxes = RandomCrops(224, min_area=0.25).draw(10_000, 256, torch.device("cpu"))
    full = ((boxes.width == 256) | (boxes.height == 256)).float().mean()
    assert full < 0.02  # clamping boxes that do not fit, instead of drawing again, would give 0.15


def test_the_whole_patch_is_taken_where_no_draw_fits() -> None:
    crops = RandomCrops(8, min_area=1.0)  # no box of the full area but the square fits
    boxes = crops.draw(100, 64, torch.device("cpu"))
    whole = (boxes.width == 64) & (boxes.height == 64)
    assert whole.float().mean() > 0.8
    assert ((boxes.width >= 63) & (boxes.height >= 63)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_moves_no_pixel(dtype: torch.dtype) -> None:
    patches = torch.randint(0, 256, (5, 3, 300, 300), dtype=torch.uint8)
    for crops in (RandomCrops(224, max_shift=0.2), GroupedCrops(224), RandomCrops(224).eval()):
        results = []
        for enabled in (False, True):
            torch.manual_seed(0)
            with torch.autocast("cpu", dtype=dtype, enabled=enabled):
                results.append(crops(patches))
        assert torch.equal(*results)


def test_training_and_evaluation_resample_alike() -> None:
    patches = torch.randint(0, 256, (3, 3, 96, 96), dtype=torch.uint8)
    crops = RandomCrops(40, min_area=1.0, flips=False)
    torch.manual_seed(0)
    boxes = crops.draw(3, 96, torch.device("cpu"))
    whole = Boxes(*(torch.zeros(3), torch.zeros(3), torch.full((3,), 96.0), torch.full((3,), 96.0)), *boxes[4:])
    difference = crop_and_resize(patches, whole, 40).int() - crops.eval()(patches).int()
    assert difference.abs().max() <= 1
    assert (difference != 0).float().mean() < 1e-3  # rounded in the other direction


def test_resizing_keeps_constant_patches_constant() -> None:
    flat = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 40, 40).repeat(2, 1, 1, 1)
    for size in (13, 28, 64):
        resized = RandomCrops(size).eval()(flat)  # 512 patches, which are processed in two parts
        assert torch.equal(resized, flat[:, :, :1, :1].expand(-1, -1, size, size))


def test_shifts_fill_with_black() -> None:
    torch.manual_seed(0)
    white = torch.full((400, 3, 32, 32), 255, dtype=torch.uint8)
    assert (RandomCrops(32, min_area=1.0)(white) > 200).all()
    shifted = RandomCrops(32, min_area=1.0, flips=False, max_shift=0.25)(white)
    black = (shifted[:, 0] == 0).float().mean((1, 2))
    assert black.max() <= 1 - 0.75**2 + 0.02
    assert black.max() > 0.3
    sides = torch.stack([shifted[:, 0, 16, 0] == 0, shifted[:, 0, 16, -1] == 0]).float().mean(1)
    assert (sides > 0.3).all()  # shifted to the left as often as to the right
    with pytest.raises(ValueError, match=r"max_shift is 1.*\[0, 1\)"):
        RandomCrops(8, max_shift=1.0)


def test_grouped_crops_share_boxes_and_mirror_half() -> None:
    torch.manual_seed(0)
    boxes = GroupedCrops(16, groups=4).draw(32, 256, torch.device("cpu"))
    shared = torch.stack(boxes[:4], 1)
    assert len(torch.unique(shared, dim=0)) == 4
    for run in shared.split(8):
        assert len(torch.unique(run, dim=0)) == 1
    assert boxes.mirrored.sum() == boxes.flipped.sum() == 16
    assert not torch.equal(boxes.mirrored, boxes.flipped)
    assert GroupedCrops(8)(torch.zeros(5, 3, 16, 16, dtype=torch.uint8)).shape == (5, 3, 8, 8)
    with pytest.raises(ValueError, match="groups is 0"):
        GroupedCrops(8, groups=0)


def test_normalize() -> None:
    mean, std = (0.5, 0.25, 0.75), (0.1, 0.2, 0.5)
    patches = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    normal = Normalize(mean, std)(patches)
    expected = (patches / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(normal, expected)
    assert normal.is_contiguous(memory_format=torch.channels_last)
