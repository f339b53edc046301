"""Tissue masks of real and drawn thumbnails; the grid against slow loops."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from skimage import color, filters

from e2e_abmilx.slides import Slide
from e2e_abmilx.slides.grid import coarse_grid, patch_grid
from e2e_abmilx.slides.tissue import TissueError, tissue_mask

Mask = NDArray[np.bool_]


def picture(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path).convert("RGB"))


def slide_mask(path: Path, max_side: int = 2048, mpp: float | None = None) -> Mask:
    """Mask of a slide whose level 0 has ``mpp`` µm/px."""
    with Slide(path) as slide:
        thumbnail = slide.thumbnail(max_side)
        return tissue_mask(thumbnail, mpp=mpp and mpp * slide.size[0] / thumbnail.shape[1])


def hue_and_saturation(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Hue in degrees and saturation in [0, 1]."""
    hsv = color.rgb2hsv(rgb)
    return hsv[..., 0] * 360, hsv[..., 1]


class TestRealThumbnails:
    def test_green_pen_is_left_out_and_the_tissue_beside_it_kept(self, shared: Path) -> None:
        rgb = picture(shared / "data/tissue/tcga-green-pen.png")
        mask = tissue_mask(rgb, mpp=None)
        hue, saturation = hue_and_saturation(rgb)
        pen = (hue > 140) & (hue < 200) & (saturation > 0.2)
        assert pen.sum() > 30_000
        assert mask[pen].mean() <= 0.01
        stained = (hue > 270) & (saturation > 0.2)
        stained[:, 130:500] = False  # the stroke and its rims
        assert mask[stained].mean() >= 0.98

    def test_blue_pen_is_left_out_and_the_tissue_beside_it_kept(self, shared: Path) -> None:
        rgb = picture(shared / "data/tissue/wsi-blue-pen.png")
        mask = tissue_mask(rgb, mpp=None)
        hue, saturation = hue_and_saturation(rgb)
        pen = (hue > 190) & (hue < 235) & (saturation > 0.35)
        assert pen.sum() > 300
        assert not mask[pen].any()
        assert mask[(hue > 290) & (saturation > 0.2)].mean() >= 0.95

    def test_a_bubble_edge_on_blank_glass_is_not_tissue(self, shared: Path) -> None:
        assert not tissue_mask(picture(shared / "data/tissue/no-tissue-line.png"), mpp=None).any()

    def test_almost_white_has_its_one_fragment_and_no_glass(self, shared: Path) -> None:
        mask = tissue_mask(picture(shared / "data/tissue/almost-white-2.png"), mpp=None)
        assert mask[5:30, 330:380].mean() >= 0.7
        assert not mask[130:].any()
        assert not mask[:, :295].any()

    def test_loose_tissue_that_fills_the_field(self, shared: Path) -> None:
        rgb = picture(shared / "data/tissue/tissue-level0-4302-10273-4814-10785.png")
        mask = tissue_mask(rgb, mpp=None)
        grey = color.rgb2gray(rgb)
        assert mask[grey < 0.6].mean() >= 0.98
        assert 0.5 <= mask.mean() <= 0.75

    def test_gastrectomy_without_ink_bubbles_and_dirt(self, shared: Path) -> None:
        mask = slide_mask(shared / "data/slides/gastrectomy.svs", mpp=2.93)
        height, width = mask.shape

        def share(left: float, top: float, right: float, bottom: float) -> float:
            """Tissue in a box given in thousandths of the slide."""
            rows = slice(int(top * height / 1000), int(bottom * height / 1000))
            columns = slice(int(left * width / 1000), int(right * width / 1000))
            return float(mask[rows, columns].mean())

        assert share(70, 900, 530, 1000) == 0  # black ink, a grey field, the edge between glass and field
        assert share(100, 705, 180, 880) == 0  # the left edge of a bubble
        assert share(130, 840, 280, 885) == 0  # its lower edge
        assert share(220, 770, 250, 800) == 0  # a black grain
        assert share(0, 0, 150, 1000) == 0  # glass and dust
        assert share(810, 330, 850, 370) == 1  # mucosa
        assert share(660, 405, 690, 440) >= 0.99  # blood
        assert share(885, 150, 910, 195) >= 0.98  # muscle, with gaps between its bundles
        assert 0.26 <= mask.mean() <= 0.31

    def test_the_size_of_the_thumbnail_hardly_matters(self, shared: Path) -> None:
        path = shared / "data/slides/gastrectomy.svs"
        shares = [slide_mask(path, side, mpp=2.93).mean() for side in (500, 1000, 2048)]
        assert max(shares) - min(shares) <= 0.02

    def test_cmu_small_region(self, shared: Path) -> None:
        mask = slide_mask(shared / "data/slides/CMU-1-Small-Region.svs", 1024, mpp=0.499)
        assert 0.33 <= mask.mean() <= 0.38
        assert mask[-200:, 250:550].mean() >= 0.99
        assert not mask[:, 690:].any()

    def test_no_mpp_slide(self, shared: Path) -> None:
        mask = slide_mask(shared / "data/slides/no_mpp.tiff")
        assert mask[1360:1530, 850:1020].mean() >= 0.999  # solid tumour
        assert not mask[1200:].T[1800:].any()  # dusty glass
        assert not mask[:, :90].any()
        assert 0.44 <= mask.mean() <= 0.51

    def test_images_of_the_ucsb_cohort_give_fine_and_coarse_patches(self, shared: Path) -> None:
        paths = sorted((shared / "data/ucsb_breast/slides").glob("*.tiff"))
        assert len(paths) == 58
        size = (896, 768)
        for path in paths[::4]:
            mask = slide_mask(path, 1024, mpp=0.2)
            assert 0.3 <= mask.mean() <= 0.98, path
            fine = patch_grid(mask, size, footprint=256)
            coarse = coarse_grid(mask, size, fine, fine_footprint=256, footprint=512)
            assert len(fine) >= 3, path
            assert len(coarse) >= 1, path


def draw(
    glass: tuple[int, int, int],
    disc: tuple[int, int, int] | None = None,
    pens: tuple[tuple[int, int, int], ...] = (),
) -> tuple[NDArray[np.uint8], Mask, Mask]:
    """A thumbnail with a disc and vertical pen strokes, blurred and noisy; where the disc and the strokes are."""
    side, width = 800, 20
    image = Image.new("RGB", (side, side), glass)
    pencil = ImageDraw.Draw(image)
    if disc is not None:
        pencil.ellipse((300, 200, 700, 600), fill=disc)
    strokes = np.zeros((side, side), dtype=bool)
    for number, pen in enumerate(pens):
        left = 30 + 60 * number
        pencil.rectangle((left, 50, left + width, 750), fill=pen)
        strokes[50:750, left : left + width] = True
    smooth = filters.gaussian(np.asarray(image).astype(float), 1, channel_axis=-1)
    noisy = smooth + np.random.default_rng(0).normal(0, 3, smooth.shape)
    rows, columns = np.mgrid[:side, :side]
    inside = (rows - 400) ** 2 + (columns - 500) ** 2 <= 200**2
    return noisy.clip(0, 255).astype(np.uint8), inside, strokes


WHITE, GREYISH, PINKISH, BLUISH = (250, 250, 250), (225, 225, 225), (238, 226, 236), (228, 232, 240)
GREEN, BLUE, BLACK, RED = (20, 120, 70), (40, 80, 170), (25, 25, 30), (200, 25, 35)
EOSIN, PALE_EOSIN, HAEMATOXYLIN, BLOOD = (220, 135, 185), (232, 195, 215), (110, 85, 165), (175, 40, 95)


class TestDrawnThumbnails:
    @pytest.mark.parametrize("glass", [WHITE, GREYISH, PINKISH, BLUISH])
    @pytest.mark.parametrize("stain", [EOSIN, PALE_EOSIN, HAEMATOXYLIN, BLOOD])
    def test_a_stained_disc_among_pens(
        self, glass: tuple[int, int, int], stain: tuple[int, int, int]
    ) -> None:
        tinted = tuple(round(value * light / 255) for value, light in zip(stain, glass, strict=True))
        rgb, disc, strokes = draw(glass, tinted, (GREEN, BLUE, BLACK, RED))
        mask = tissue_mask(rgb, mpp=10.0)
        assert (mask & disc).sum() / (mask | disc).sum() >= 0.95
        assert not mask[strokes].any()

    @pytest.mark.parametrize("glass", [WHITE, GREYISH, PINKISH, BLUISH, (0, 0, 0)])
    @pytest.mark.parametrize("mpp", [None, 0.2, 10.0, 50.0])
    def test_blank_glass_is_empty(self, glass: tuple[int, int, int], mpp: float | None) -> None:
        assert not tissue_mask(draw(glass)[0], mpp=mpp).any()

    @pytest.mark.parametrize("stain", [EOSIN, PALE_EOSIN, HAEMATOXYLIN, BLOOD])
    def test_a_field_full_of_tissue_is_tissue(self, stain: tuple[int, int, int]) -> None:
        assert tissue_mask(draw(stain)[0], mpp=0.5).mean() >= 0.999

    @pytest.mark.parametrize("ink", [GREEN, BLUE, BLACK, RED])
    def test_a_field_full_of_ink_is_not(self, ink: tuple[int, int, int]) -> None:
        assert not tissue_mask(draw(ink)[0], mpp=10.0).any()

    def test_specks_go_and_small_holes_are_filled(self) -> None:
        image = Image.new("RGB", (600, 600), WHITE)
        pencil = ImageDraw.Draw(image)
        pencil.rectangle((100, 100, 400, 400), fill=EOSIN)
        for left, side in ((200, 6), (300, 60)):
            pencil.rectangle((left, 200, left + side, 200 + side), fill=WHITE)
        pencil.rectangle((500, 500, 504, 504), fill=EOSIN)
        mask = tissue_mask(np.asarray(image), mpp=10.0)
        assert mask[195:215, 195:215].all()  # 60 µm wide
        assert not mask[210:250, 310:350].any()  # 600 µm wide
        assert not mask[490:, 490:].any()  # 50 µm wide

    @pytest.mark.parametrize(
        ("thumbnail", "mpp", "match"),
        [
            (np.zeros((8, 8, 4), np.uint8), 10.0, r"\(8, 8, 4\).*\(h, w, 3\).*convert"),
            (np.zeros((8, 8, 3), np.float32), 10.0, r"float32.*uint8.*convert"),
            (np.zeros((8, 8, 3), np.uint8), 0.0, r"mpp is 0.0.*positive.*None"),
        ],
    )
    def test_bad_input(self, thumbnail: np.ndarray, mpp: float, match: str) -> None:
        with pytest.raises(TissueError, match=match):
            tissue_mask(thumbnail, mpp=mpp)


def slow_share(mask: Mask, size: tuple[int, int], x: float, y: float, footprint: float) -> float:
    """Share of tissue in one patch, pixel of the mask by pixel."""
    rows, columns = mask.shape
    width, height = size[0] / columns, size[1] / rows
    area = 0.0
    for row, column in np.argwhere(mask):
        across = min(x + footprint, (column + 1) * width) - max(x, column * width)
        down = min(y + footprint, (row + 1) * height) - max(y, row * height)
        area += max(0.0, across) * max(0.0, down)
    return area / footprint**2


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    seed, density = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.3, 0.7, 1.0]))
    return np.random.default_rng(seed).random((rows, columns)) < density


SIZES = st.tuples(st.integers(40, 700), st.integers(40, 700))
FOOTPRINTS = st.one_of(st.integers(30, 150).map(float), st.floats(30, 150))
OVERLAPS = st.one_of(st.sampled_from([0.0, 0.25, 0.5]), st.floats(0, 0.8))
SHARES = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))


class TestPatchGrid:
    @given(masks(), SIZES, FOOTPRINTS, OVERLAPS, SHARES)
    @settings(max_examples=60, deadline=None)
    def test_the_patches_with_enough_tissue_are_kept_and_no_others(
        self, mask: Mask, size: tuple[int, int], footprint: float, overlap: float, min_tissue: float
    ) -> None:
        every = patch_grid(mask, size, footprint=footprint, overlap=overlap, min_tissue=0.0)
        kept = patch_grid(mask, size, footprint=footprint, overlap=overlap, min_tissue=min_tissue)
        found = {(x, y) for x, y in kept.tolist()}
        assume(len(every) <= 400)
        for x, y in every.tolist():
            share = slow_share(mask, size, x, y, footprint)
            if abs(share - min_tissue) > 1e-6:
                assert ((x, y) in found) == (share > min_tissue)

    @given(SIZES, FOOTPRINTS, OVERLAPS)
    @settings(max_examples=100, deadline=None)
    def test_a_uniform_lattice_inside_the_slide_up_to_its_borders(
        self, size: tuple[int, int], footprint: float, overlap: float
    ) -> None:
        every = patch_grid(np.ones((3, 4), bool), size, footprint=footprint, overlap=overlap, min_tissue=1.0)
        assert every.dtype == np.int64
        assert every.shape[1:] == (2,)
        assert (every >= 0).all()
        assert (every + footprint <= size).all()
        if min(size) < footprint:
            assert len(every) == 0
            return
        assert every.tolist() == sorted(every.tolist(), key=lambda corner: corner[::-1])
        x, y = np.unique(every[:, 0]), np.unique(every[:, 1])
        assert len(every) == len(x) * len(y)
        stride = footprint * (1 - overlap)
        for origins, length in ((x, size[0]), (y, size[1])):
            assert origins[0] == 0
            assert 0 <= length - footprint - origins[-1] <= 0.05 * footprint + 1
            np.testing.assert_allclose(origins[:-1], stride * np.arange(len(origins) - 1), atol=0.51)
            assert all(second - first <= stride + 1 for first, second in pairwise(origins))

    @given(masks(), SIZES, FOOTPRINTS, OVERLAPS, SHARES, SHARES)
    @settings(max_examples=50, deadline=None)
    def test_more_tissue_asked_for_never_adds_a_patch(
        self,
        mask: Mask,
        size: tuple[int, int],
        footprint: float,
        overlap: float,
        one: float,
        other: float,
    ) -> None:
        low, high = (
            patch_grid(mask, size, footprint=footprint, overlap=overlap, min_tissue=share).tolist()
            for share in sorted((one, other))
        )
        assert all(corner in low for corner in high)

    def test_a_blank_slide_has_no_patch(self) -> None:
        assert patch_grid(np.zeros((9, 9), bool), (900, 900), footprint=100).shape == (0, 2)

    def test_fractional_footprint(self) -> None:
        """Patches of 256 px at 0.5 µm/px on a slide of 0.499 µm/px lie 256.5 px apart."""
        footprint = 256 * 0.5 / 0.499
        x = np.unique(patch_grid(np.ones((4, 4), bool), (10_000, 600), footprint=footprint)[:, 0])
        assert x[:4].tolist() == [0, 257, 513, 770]
        assert x[-1] == math.floor(10_000 - footprint)

    def test_a_large_slide(self) -> None:
        every = patch_grid(np.ones((2048, 2048), bool), (100_000, 100_000), footprint=512.0)
        assert len(every) == 196**2

    @pytest.mark.parametrize(
        ("arguments", "match"),
        [
            ({"footprint": 0.0}, r"footprint is 0.0.*more than 0.*check"),
            ({"footprint": math.nan}, r"footprint is nan"),
            ({"footprint": 9.0, "overlap": 1.0}, r"overlap is 1.0.*\[0, 1\).*0.5"),
            ({"footprint": 9.0, "overlap": -0.1}, r"overlap is -0.1"),
            ({"footprint": 9.0, "min_tissue": 1.1}, r"min_tissue is 1.1.*\[0, 1\].*0.5"),
        ],
    )
    def test_bad_arguments(self, arguments: dict[str, float], match: str) -> None:
        with pytest.raises(TissueError, match=match):
            patch_grid(np.ones((4, 4), bool), (100, 100), **arguments)
        shares = {name: value for name, value in arguments.items() if name != "footprint"}
        nothing = np.zeros((0, 2), np.int64)
        with pytest.raises(TissueError, match=match):
            coarse_grid(
                np.ones((4, 4), bool),
                (100, 100),
                nothing,
                fine_footprint=arguments["footprint"],
                footprint=20.0,
                **shares,
            )


class TestCoarseGrid:
    @given(SIZES, FOOTPRINTS, OVERLAPS, st.sampled_from([1.0, 1.3, 1.5, 2.0, 2.5, 3.0, 4.0]))
    @settings(max_examples=100, deadline=None)
    def test_coarse_patches_are_centred_on_the_fine_patches_that_they_contain(
        self, size: tuple[int, int], footprint: float, overlap: float, ratio: float
    ) -> None:
        assume(ratio * footprint <= min(size))
        mask, large = np.ones((3, 4), bool), ratio * footprint
        fine = patch_grid(mask, size, footprint=footprint, overlap=overlap)
        coarse = coarse_grid(mask, size, fine, fine_footprint=footprint, footprint=large, overlap=overlap)
        lattice = footprint * (1 - overlap) * np.arange(1000)
        for axis in (0, 1):
            origins = np.unique(coarse[:, axis])
            assert origins[0] == 0
            assert size[axis] - large - origins[-1] <= 0.05 * large + 1
            assert all(second - first <= large + 1 for first, second in pairwise(origins))
            for origin in origins[1:-1]:  # the first and the last may have been moved inwards
                inside = lattice[(lattice >= origin - 1) & (lattice + footprint <= origin + large + 1)]
                assert len(inside) >= 1
                assert abs(inside.mean() + footprint / 2 - (origin + large / 2)) <= 1

    @given(masks(), st.integers(2, 4), FOOTPRINTS)
    @settings(max_examples=50, deadline=None)
    def test_whole_ratios_cover_whole_blocks(self, mask: Mask, ratio: int, footprint: float) -> None:
        size = (round(footprint * ratio * 3) + 2, round(footprint * ratio * 2) + 2)
        fine = patch_grid(mask, size, footprint=footprint, min_tissue=0.0)
        coarse = coarse_grid(
            mask, size, fine, fine_footprint=footprint, footprint=ratio * footprint, min_tissue=0.0
        )
        corners = {(x, y) for x, y in fine.tolist()}
        blocks = [
            (x, y) for x, y in coarse.tolist() if x < 2.5 * ratio * footprint and y < 1.5 * ratio * footprint
        ]
        assert len(blocks) >= 6
        for x, y in blocks:
            column, row = round(x / footprint), round(y / footprint)
            assert (column % ratio, row % ratio) == (0, 0)
            for i in range(ratio):
                for j in range(ratio):
                    assert (round((column + i) * footprint), round((row + j) * footprint)) in corners

    @given(masks(), SIZES, FOOTPRINTS, OVERLAPS, SHARES, st.sampled_from([1.5, 2.0, 4.0]), st.integers(1, 9))
    @settings(max_examples=60, deadline=None)
    def test_enough_tissue_and_a_fine_patch_in_each(
        self,
        mask: Mask,
        size: tuple[int, int],
        footprint: float,
        overlap: float,
        min_tissue: float,
        ratio: float,
        step: int,
    ) -> None:
        large = ratio * footprint
        lattice = patch_grid(mask, size, footprint=footprint, overlap=overlap, min_tissue=0.0)
        fine = lattice[step::step]  # stands for the fine patches that were kept

        def coarse(patches: NDArray[np.int64], least: float) -> list[list[int]]:
            return coarse_grid(
                mask,
                size,
                patches,
                fine_footprint=footprint,
                footprint=large,
                overlap=overlap,
                min_tissue=least,
            ).tolist()

        every, kept = coarse(lattice, 0.0), coarse(fine, min_tissue)
        assume(len(every) <= 200)
        centres = fine + footprint / 2
        for x, y in every:
            covers = bool(((centres >= (x, y)) & (centres <= (x + large, y + large))).all(axis=1).any())
            share = slow_share(mask, size, x, y, large)
            if abs(share - min_tissue) > 1e-6:
                assert ([x, y] in kept) == (covers and share > min_tissue)
        assert all(corner in every for corner in kept)

    def test_levels_that_are_nearly_twice_as_coarse(self) -> None:
        """Snapped to levels, scales of 0.5 and 1.0 µm/px may come out 1.98 or 2.03 apart."""
        mask, size = np.ones((4, 4), bool), (5130, 5130)
        fine = patch_grid(mask, size, footprint=256.5)
        counts = {
            len(coarse_grid(mask, size, fine, fine_footprint=256.5, footprint=256.5 * ratio))
            for ratio in (1.98, 2.0, 2.03)
        }
        assert counts == {100}

    def test_a_slide_smaller_than_a_coarse_patch_has_none(self) -> None:
        mask, size = np.ones((4, 4), bool), (500, 1500)
        fine = patch_grid(mask, size, footprint=300.0)
        assert len(fine) == 10
        assert coarse_grid(mask, size, fine, fine_footprint=300.0, footprint=600.0).shape == (0, 2)

    def test_coarse_must_not_be_finer(self) -> None:
        with pytest.raises(
            TissueError, match=r"coarse footprint 128 is smaller than the fine one, 256; give"
        ):
            coarse_grid(
                np.ones((4, 4), bool),
                (999, 999),
                np.zeros((0, 2), np.int64),
                fine_footprint=256.0,
                footprint=128.0,
            )


@pytest.mark.parametrize("eosin", [(210, 160, 170), (225, 150, 160), (200, 120, 150)])
def test_eosin_of_any_tint_is_tissue(eosin: tuple[int, int, int]) -> None:
    thumbnail = np.full((400, 400, 3), (238, 234, 240), np.uint8)
    y, x = np.ogrid[:400, :400]
    disc = (x - 200) ** 2 + (y - 200) ** 2 < 120**2
    thumbnail[disc] = eosin
    found = tissue_mask(thumbnail, mpp=8.0)
    assert (found & disc).sum() / (found | disc).sum() > 0.95
