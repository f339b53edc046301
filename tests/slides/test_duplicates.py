"""A copy of a slide is recognised by the hash of its thumbnail, and no other slide is taken for it."""

import io
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from e2e_abmilx.errors import InputError
from e2e_abmilx.slides import Slide
from e2e_abmilx.slides.duplicates import SAME_SLIDE, find_same, hash_distance, thumbnail_hash
from e2e_abmilx.synthetic.slide import draw_slide

Picture = NDArray[np.uint8]


def _hash(thumbnail: Picture) -> str:
    found = thumbnail_hash(thumbnail)
    assert found is not None
    return found


def _thumbnail(path: Path, max_side: int = 1024) -> Picture:
    with Slide(path) as slide:
        return slide.thumbnail(max_side)


@pytest.fixture(scope="module")
def drawn() -> list[Picture]:
    """96 slides of half a millimetre, with and without lesions."""
    return [draw_slide(seed=seed, lesion_fraction=seed % 3 * 0.2, side=512, mpp=1.0)[0] for seed in range(96)]


@pytest.fixture(scope="module")
def real(shared: Path) -> list[Picture]:
    names = ("CMU-1-Small-Region.svs", "gastrectomy.svs", "no_mpp.tiff")
    return [_thumbnail(shared / "data/slides" / name) for name in names]


def _bits(text: str) -> NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8)).astype(bool).reshape(16, 16)


def _least(hashes: list[str]) -> float:
    return min(hash_distance(one, other) for one, other in combinations(hashes, 2))


def test_different_slides_are_never_the_same(drawn: list[Picture]) -> None:
    hashes = [_hash(each) for each in drawn]
    for number, one in enumerate(hashes):
        assert find_same({"slide": one}, hashes[:number] + hashes[number + 1 :]) == {}
    assert _least(hashes) > 1.5 * SAME_SLIDE


def test_different_real_slides_are_never_the_same(shared: Path, real: list[Picture]) -> None:
    paths = sorted((shared / "data/ucsb_breast/slides").glob("*.tif*"))
    hashes = [_hash(_thumbnail(path)) for path in paths] + [_hash(each) for each in real]
    assert len(hashes) == 61
    for number, one in enumerate(hashes):
        assert find_same({"slide": one}, hashes[:number] + hashes[number + 1 :]) == {}


def _jpeg(quality: int) -> Callable[[Picture], Picture]:
    def save(picture: Picture) -> Picture:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "jpeg", quality=quality)
        return np.asarray(Image.open(file))

    return save


def _resize(factor: float) -> Callable[[Picture], Picture]:
    def resize(picture: Picture) -> Picture:
        size = (round(factor * picture.shape[1]), round(factor * picture.shape[0]))
        return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))

    return resize


def _recolour(picture: Picture) -> Picture:
    """Another scanner's gamma and white balance."""
    return (255 * (picture / 255) ** 0.85 * np.array([1, 0.97, 0.93])).round().astype(np.uint8)


def _noise(picture: Picture) -> Picture:
    noise = np.random.default_rng(0).normal(0, 5, picture.shape)
    return np.clip(picture + noise, 0, 255).round().astype(np.uint8)


def _frame(picture: Picture) -> Picture:
    return np.pad(picture, ((20, 20), (20, 20), (0, 0)), constant_values=240)


CHANGES = {
    **{f"JPEG {quality}": _jpeg(quality) for quality in (30, 50, 75, 95)},
    **{f"size {factor}": _resize(factor) for factor in (0.5, 0.7, 1.4, 2)},
    "recoloured": _recolour,
    "noise": _noise,
    "border of glass": _frame,
    "1 % cut off": lambda picture: picture[len(picture) // 100 :, picture.shape[1] // 100 :],
    "turned by 90°": lambda picture: np.rot90(picture).copy(),
    "turned by 180°": lambda picture: np.rot90(picture, 2).copy(),
    "turned by 270°": lambda picture: np.rot90(picture, 3).copy(),
    "mirrored": lambda picture: picture[:, ::-1].copy(),
    "transposed": lambda picture: picture.transpose(1, 0, 2).copy(),
    "turned and JPEG 50": lambda picture: _jpeg(50)(np.rot90(picture).copy()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_the_same(change: str, drawn: list[Picture]) -> None:
    distances = [hash_distance(_hash(each), _hash(CHANGES[change](each))) for each in drawn[:6]]
    assert max(distances) <= SAME_SLIDE
    assert np.mean(distances) < SAME_SLIDE / 2


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_of_a_real_slide_is_the_same(change: str, real: list[Picture]) -> None:
    assert max(hash_distance(_hash(each), _hash(CHANGES[change](each))) for each in real) <= SAME_SLIDE


@pytest.mark.parametrize("max_side", [512, 800, 2048])
def test_the_size_of_the_thumbnail_does_not_matter(max_side: int, shared: Path) -> None:
    for name in ("CMU-1-Small-Region.svs", "gastrectomy.svs"):
        path = shared / "data/slides" / name
        assert hash_distance(_hash(_thumbnail(path)), _hash(_thumbnail(path, max_side))) < SAME_SLIDE / 2


@pytest.mark.parametrize(
    ("compression", "shrink", "how"),
    [("jpeg", 1, {"compressionargs": {"level": 40}, "tile": (256, 256)}), ("jpeg", 2, {"tile": (256, 256)}),
     ("deflate", 1, {"rowsperstrip": 40}), ("lzw", 4, {"tile": (128, 128)})],
)  # fmt: skip
def test_a_slide_saved_again_is_the_same(
    compression: str, shrink: int, how: dict[str, object], slide_file: Path, tmp_path: Path
) -> None:
    with Slide(slide_file) as slide:
        pixels = slide.read_level(0, 0, 0, *slide.size)
    smaller = np.asarray(Image.fromarray(pixels).reduce(shrink))
    tifffile.imwrite(tmp_path / "renamed.tiff", smaller, photometric="rgb", compression=compression, **how)
    same = find_same({"renamed": _hash(_thumbnail(tmp_path / "renamed.tiff"))}, [_hash(_thumbnail(slide_file))])
    assert list(same) == ["renamed"]
    assert same["renamed"] < SAME_SLIDE / 2


def _speck(picture: Picture, fraction: float, frame: int = 0) -> Picture:
    """A white slide with a disc of a picture's tissue in its middle, in a black frame."""
    side = round(512 * fraction**0.5)
    slide = np.full((512, 512, 3), (240, 238, 241), np.uint8)
    tissue = np.asarray(Image.fromarray(picture[128:384, 128:384]).resize((side, side)))
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    start = (512 - side) // 2
    slide[start : start + side, start : start + side][x**2 + y**2 < 1] = tissue[x**2 + y**2 < 1]
    slide = _noise(slide)
    slide[:frame], slide[:, :frame] = 10, 10
    return slide


@pytest.mark.parametrize("frame", [0, 10])
@pytest.mark.parametrize("fraction", [0.003, 0.01, 0.03, 0.1])
def test_slides_with_little_tissue_at_one_place_differ(fraction: float, frame: int, drawn: list[Picture]) -> None:
    """The place of the tissue alone decides the bits of a hash of the whole thumbnail."""
    hashes = [thumbnail_hash(_speck(each, fraction, frame)) for each in drawn[:12]]
    judged = [found for found in hashes if found]
    assert fraction < 0.1 or len(judged) > 9
    assert len(judged) < 2 or _least(judged) > 1.5 * SAME_SLIDE


def test_thumbnails_without_tissue_are_not_judged(shared: Path) -> None:
    blank = np.full((300, 400, 3), 240, np.uint8)
    grey = np.repeat(np.linspace(0, 255, 300).astype(np.uint8)[:, None, None], 400, 1).repeat(3, 2)
    tiny = np.full((1, 1, 3), 200, np.uint8)
    for thumbnail in (blank, _noise(blank), grey, _noise(grey), np.zeros_like(blank), tiny):
        assert thumbnail_hash(thumbnail) is None
    for name in ("almost-white-2.png", "no-tissue-line.png"):
        picture = Image.open(shared / "data/tissue" / name).convert("RGB")
        assert thumbnail_hash(np.asarray(picture)) is None


def test_mirroring_changes_the_signs_of_odd_frequencies(real: list[Picture]) -> None:
    odd = np.arange(16) % 2 == 1
    for picture in real:
        bits = _bits(_hash(picture))
        assert (_bits(_hash(picture[:, ::-1].copy())) == bits ^ odd).mean() > 0.97
        assert (_bits(_hash(picture[::-1].copy())) == bits ^ odd[:, None]).mean() > 0.97
        assert (_bits(_hash(picture.transpose(1, 0, 2).copy())) == bits.T).mean() > 0.97


def test_distances_are_the_least_over_the_eight_orientations() -> None:
    rng = np.random.default_rng(0)
    one, other = (rng.integers(0, 2, (16, 16)).astype(bool) for _ in range(2))
    odd = np.arange(16) % 2 == 1
    turned = [
        each ^ (odd & bool(across)) ^ (odd & bool(down))[:, None]
        for each in (one, one.T)
        for across in (0, 1)
        for down in (0, 1)
    ]
    text, again = (np.packbits(each).tobytes().hex() for each in (one, other))
    assert hash_distance(text, again) == pytest.approx(min((each != other).mean() for each in turned))
    for each in turned:
        assert hash_distance(np.packbits(each).tobytes().hex(), text) == 0


def test_the_nearest_of_many_is_found() -> None:
    rng = np.random.default_rng(0)
    known = [rng.bytes(32).hex() for _ in range(500)]
    flipped = bytearray(bytes.fromhex(known[77]))
    flipped[3] ^= 0b1011
    hashes = {f"s{number}": rng.bytes(32).hex() for number in range(300)} | {"copy": flipped.hex()}
    assert find_same(hashes, known) == {"copy": pytest.approx(3 / 256)}
    assert find_same({}, known) == find_same(hashes, []) == {}


@pytest.mark.parametrize("text", ["", "abc", "g" * 64, "A" * 64, "0" * 65])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="64 hexadecimal digits"):
        hash_distance("0" * 64, text)
