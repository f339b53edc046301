import pytest
import torch
import torch.nn.functional as F

from e2e_abmilx.augment import Normalize, RandomCrops


def test_evaluation_sees_the_whole_patch_resized() -> None:
    patches = torch.randint(0, 256, (3, 3, 40, 40), dtype=torch.uint8)
    crops = RandomCrops(40).eval()
    assert torch.equal(crops(patches), patches.float())
    smaller = RandomCrops(20).eval()(patches)
    torch.testing.assert_close(
        smaller, F.interpolate(patches.float(), (20, 20), mode="bilinear", antialias=True)
    )


def test_without_randomness_training_sees_the_same() -> None:
    torch.manual_seed(0)
    patches = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    whole = RandomCrops(16, min_area=1.0, flips=False)
    # an area of 1 leaves only the aspect ratio free, and a crop never leaves the patch
    assert whole(patches).min() >= 0
    assert whole(patches).max() <= 255


def test_each_patch_has_its_own_crop_and_flip() -> None:
    torch.manual_seed(0)
    ramp = torch.arange(32.0).expand(1, 3, 32, 32)
    crops = RandomCrops(16, min_area=0.25)(ramp.repeat(200, 1, 1, 1))
    assert crops.shape == (200, 3, 16, 16)
    left, right = crops[:, 0, 8, 0], crops[:, 0, 8, -1]
    mirrored = (left > right).float().mean()
    assert 0.35 < mirrored < 0.65
    width = (left - right).abs() / 31
    assert width.min() > 0.35
    assert width.max() <= 1.0
    assert len(torch.unique(left)) > 150


def test_crops_follow_the_torch_seed() -> None:
    patches = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    results = []
    for _ in range(2):
        torch.manual_seed(7)
        results.append(RandomCrops(8)(patches))
    assert torch.equal(*results)


def test_min_area_is_a_share() -> None:
    with pytest.raises(ValueError, match=r"min_area is 0.*\(0, 1\]"):
        RandomCrops(8, min_area=0)


def test_normalize() -> None:
    mean, std = (0.5, 0.25, 0.75), (0.1, 0.2, 0.5)
    patches = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    normal = Normalize(mean, std)(patches)
    expected = (patches / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(normal, expected)
    assert normal.is_contiguous(memory_format=torch.channels_last)
