"""Crops of patches, against the crops and the antialiased resizing of PyTorch."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from e2e_abmilx.encoders.resample import Boxes, crop_and_resize


def _boxes(*rows: tuple[int, int, int, int, bool, bool]) -> Boxes:
    *numbers, mirrored, flipped = torch.tensor(rows).T
    return Boxes(*(values.float() for values in numbers), mirrored.bool(), flipped.bool())


def _expected(patch: Tensor, box: tuple[int, int, int, int, bool, bool], size: int) -> Tensor:
    """Cut and resize one patch by itself; what lies outside it is black."""
    left, top, width, height, mirrored, flipped = box
    side = patch.shape[-1]
    padded = F.pad(patch.float(), (side,) * 4)  # black
    crop = padded[None, :, side + top : side + top + height, side + left : side + left + width]
    resized = F.interpolate(crop, (size, size), mode="bilinear", antialias=True)[0]
    return resized.flip([axis for axis, turned in ((2, mirrored), (1, flipped)) if turned])


@st.composite
def _box(draw: st.DrawFn, side: int) -> tuple[int, int, int, int, bool, bool]:
    width, height = draw(st.integers(1, side)), draw(st.integers(1, side))
    left, top = (draw(st.integers(-side // 2, side - length + side // 2)) for length in (width, height))
    return left, top, width, height, draw(st.booleans()), draw(st.booleans())


@given(st.data())
def test_each_crop_equals_the_resized_cut(data: st.DataObject) -> None:
    side, size = data.draw(st.integers(2, 40)), data.draw(st.integers(1, 50))
    boxes = data.draw(st.lists(_box(side), min_size=1, max_size=4))
    patches = torch.randint(0, 256, (len(boxes), 3, side, side), dtype=torch.uint8)
    crops = crop_and_resize(patches, _boxes(*boxes), size)
    assert crops.dtype == torch.uint8
    for patch, box, crop in zip(patches, boxes, crops, strict=True):
        assert (crop - _expected(patch, box, size)).abs().max() <= 0.5 + 1e-3  # rounded to integers


def test_fine_stripes_become_grey_instead_of_aliasing() -> None:
    stripes = (torch.arange(64) % 2 * 255).to(torch.uint8).expand(1, 3, 64, 64)
    crops = crop_and_resize(stripes, _boxes((0, 0, 64, 64, False, False)), 16)
    assert (crops[..., 1:-1].float() - 127.5).abs().max() < 1


def test_patches_beyond_the_first_slice_keep_their_boxes() -> None:
    patches = torch.randint(0, 256, (600, 3, 8, 8), dtype=torch.uint8)
    boxes = [(n % 3, n % 2, 5, 6, n % 5 == 0, n % 7 == 0) for n in range(600)]
    crops = crop_and_resize(patches, _boxes(*boxes), 8)
    for n in (0, 255, 256, 511, 512, 599):
        assert (crops[n] - _expected(patches[n], boxes[n], 8)).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_the_precision_of_products_is_left_as_it_was(precision: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        crop_and_resize(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), _boxes((0, 0, 4, 4, False, False)), 2)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
