"""Tissue masks of real and drawn thumbnails."""

from pathlib import Path

import numpy as np
import pytest
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
    """Return the mask of a slide with ``mpp`` µm per pixel at level 0."""
    with Slide(path) as slide:
        thumbnail = slide.thumbnail(max_side)
        return tissue_mask(thumbnail, mpp=mpp and mpp * slide.size[0] / thumbnail.shape[1])


def hue_and_saturation(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return hue in degrees and saturation in [0, 1]."""
    hsv = color.rgb2hsv(rgb)
    return hsv[..., 0] * 360, hsv[..., 1]


class TestRealThumbnails:
    def test_green_pen_is_left_out_and_the_tissue_next_to_it_kept(self, shared: Path) -> None:
        rgb = picture(shared / "data/tissue/tcga-green-pen.png")
        mask = tissue_mask(rgb, mpp=None)
        hue, saturation = hue_and_saturation(rgb)
        pen = (hue > 140) & (hue < 200) & (saturation > 0.2)
        assert pen.sum() > 30_000
        assert mask[pen].mean() <= 0.01
        stained = (hue > 270) & (saturation > 0.2)
        stained[:, 130:500] = False  # the stroke and its rims
        assert mask[stained].mean() >= 0.98

    def test_blue_pen_is_left_out_and_the_tissue_next_to_it_kept(self, shared: Path) -> None:
        rgb = picture(shared / "data/tissue/wsi-blue-pen.png")
        mask = tissue_mask(rgb, mpp=None)
        hue, saturation = hue_and_saturation(rgb)
        pen = (hue > 190) & (hue < 235) & (saturation > 0.35)
        assert pen.sum() > 300
        assert not mask[pen].any()
        assert mask[(hue > 290) & (saturation > 0.2)].mean() >= 0.95

    def test_a_bubble_edge_on_blank_glass_is_not_tissue(self, shared: Path) -> None:
        assert not tissue_mask(picture(shared / "data/tissue/no-tissue-line.png"), mpp=None).any()

    def test_a_pale_fragment_is_found_and_no_glass(self, shared: Path) -> None:
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

        def fraction(left: float, top: float, right: float, bottom: float) -> float:
            """Return the fraction of tissue in a box given in thousandths of the slide."""
            rows = slice(int(top * height / 1000), int(bottom * height / 1000))
            columns = slice(int(left * width / 1000), int(right * width / 1000))
            return float(mask[rows, columns].mean())

        assert fraction(70, 900, 530, 1000) == 0  # black ink, a grey field, the edge between glass and field
        assert fraction(100, 705, 180, 880) == 0  # the left edge of a bubble
        assert fraction(130, 840, 280, 885) == 0  # its lower edge
        assert fraction(220, 770, 250, 800) == 0  # a black grain
        assert fraction(0, 0, 150, 1000) == 0  # glass and dust
        assert fraction(810, 330, 850, 370) == 1  # mucosa
        assert fraction(660, 405, 690, 440) >= 0.99  # blood
        assert fraction(885, 150, 910, 195) >= 0.98  # muscle, with gaps between its bundles
        assert 0.26 <= mask.mean() <= 0.31

    def test_the_size_of_the_thumbnail_has_little_effect(self, shared: Path) -> None:
        path = shared / "data/slides/gastrectomy.svs"
        fractions = [slide_mask(path, side, mpp=2.93).mean() for side in (500, 1000, 2048)]
        assert max(fractions) - min(fractions) <= 0.02

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
    glass: tuple[int, int, int], disc: tuple[int, int, int] | None = None, pens: tuple[tuple[int, int, int], ...] = ()
) -> tuple[NDArray[np.uint8], Mask, Mask]:
    """Draw a blurred, noisy thumbnail with a disc and vertical pen strokes; return it and the masks of both."""
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
    def test_a_stained_disc_among_pens(self, glass: tuple[int, int, int], stain: tuple[int, int, int]) -> None:
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
    def test_a_field_full_of_ink_is_not_tissue(self, ink: tuple[int, int, int]) -> None:
        assert not tissue_mask(draw(ink)[0], mpp=10.0).any()

    def test_specks_are_removed_and_small_holes_filled(self) -> None:
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
    def test_invalid_thumbnails_are_refused(self, thumbnail: np.ndarray, mpp: float, match: str) -> None:
        with pytest.raises(TissueError, match=match):
            tissue_mask(thumbnail, mpp=mpp)


@pytest.mark.parametrize("eosin", [(210, 160, 170), (225, 150, 160), (200, 120, 150)])
def test_eosin_of_any_tint_is_tissue(eosin: tuple[int, int, int]) -> None:
    thumbnail = np.full((400, 400, 3), (238, 234, 240), np.uint8)
    y, x = np.ogrid[:400, :400]
    disc = (x - 200) ** 2 + (y - 200) ** 2 < 120**2
    thumbnail[disc] = eosin
    found = tissue_mask(thumbnail, mpp=8.0)
    assert (found & disc).sum() / (found | disc).sum() > 0.95
