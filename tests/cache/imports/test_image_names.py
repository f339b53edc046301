"""Columns and rows of tiles are never confused with level-0 pixels."""

import contextlib
import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from e2e_abmilx.cache import CacheError
from e2e_abmilx.cache.imports import import_images
from e2e_abmilx.cache.imports.image_names import NamedImages, choose_names, edge_tiles, numbers_in_names
from e2e_abmilx.errors import SourceError
from e2e_abmilx.main import main
from e2e_abmilx.store import PatchStore

SIDE = 64


def _picture(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(0).normal((195, 112, 180), 24, (height // 16 + 1, width // 16 + 1, 3))
    return Image.fromarray(np.kron(noise, np.ones((16, 16, 1)))[:height, :width].clip(0, 255).astype(np.uint8))


def _deepzoom(folder: Path, width: int, height: int, *, overlap: int = 0, ending: str = "jpeg") -> None:
    """Write the tiles of one level as DeepZoom does: neighbours overlap, and tiles at the edge are smaller."""
    folder.mkdir(parents=True)
    picture = _picture(width, height)
    for column, x in enumerate(range(0, width, SIDE)):
        for row, y in enumerate(range(0, height, SIDE)):
            box = (max(0, x - overlap), max(0, y - overlap))
            end = (min(width, x + SIDE + overlap), min(height, y + SIDE + overlap))
            picture.crop((*box, *end)).save(folder / f"{column}_{row}.{ending}")


def _unreadable(out: Path) -> dict[str, int]:
    with open(out / "manifest.csv", newline="", encoding="utf-8") as file:
        return {row["slide"]: int(row["unreadable"]) for row in csv.DictReader(file)}


@pytest.mark.parametrize(
    ("width", "height", "overlap", "ending", "whole", "side"),
    [
        (6 * SIDE, 5 * SIDE, 0, "jpeg", 30, SIDE),  # DSMIL's tiler
        (6 * SIDE + 30, 5 * SIDE, 0, "jpeg", 30, SIDE),  # the last column is narrower
        (6 * SIDE + 30, 5 * SIDE + 7, 0, "png", 30, SIDE),  # and the last row is lower
        (8 * SIDE, 8 * SIDE, 1, "jpeg", 36, SIDE + 2),  # dzsave: tiles at an edge lack one overlap
    ],
)
def test_deepzoom_tiles_have_no_level_0_coordinates(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, width: int, height: int, overlap: int, ending: str,
    whole: int, side: int,
) -> None:  # fmt: skip
    _deepzoom(tmp_path / "in/s", width, height, overlap=overlap, ending=ending)
    files = len(list((tmp_path / "in/s").iterdir()))
    (row,) = import_images(tmp_path / "in", tmp_path / "out", mpp=0.5, workers=1)
    assert (row.status, row.patches, row.unreadable) == ("done", str(whole), files - whole)
    assert _unreadable(tmp_path / "out") == {"s": files - whole}
    store = PatchStore(tmp_path / "out/s.zarr")
    assert store.patch_size == side
    assert (store.coords() == -1).all()
    said = "\n".join(caplog.messages)
    assert "named after their columns and rows" in said
    assert (f"left out {files - whole} of {files} images, which are smaller" in said) == (files > whole)
    first = Image.open(sorted((tmp_path / "in/s").glob(f"*.{ending}"))[1 if overlap == 0 else 9])
    assert first.size == (side, side)


def test_the_meaning_of_names_is_an_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _deepzoom(tmp_path / "in/s", 2 * SIDE, 2 * SIDE)
    words = ["import_images", "--folder", str(tmp_path / "in"), "--workers", "1", "--out"]
    main([*words, str(tmp_path / "pixels"), "--names", "pixels"])
    assert PatchStore(tmp_path / "pixels/s.zarr").coords().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    main([*words, str(tmp_path / "tiles"), "--names", "tiles"])
    assert (PatchStore(tmp_path / "tiles/s.zarr").coords() == -1).all()
    for there, now in (("pixels", "tiles"), ("tiles", "pixels")):
        with pytest.raises(CacheError, match=r"names was (tiles|None) and is now (tiles|None)"):
            import_images(tmp_path / "in", tmp_path / there, names=now, workers=1)  # type: ignore[arg-type]


def test_a_store_of_the_first_release_which_took_tiles_for_pixels_is_refused(tmp_path: Path) -> None:
    _deepzoom(tmp_path / "in/s", 4 * SIDE, 4 * SIDE)
    import_images(tmp_path / "in", tmp_path / "out", names="pixels", workers=1)
    with pytest.raises(CacheError, match="names was None and is now tiles"):
        import_images(tmp_path / "in", tmp_path / "out", workers=1)


def _chosen(*slides: np.ndarray, side: int = SIDE) -> str:
    named = {f"s{number}": NamedImages(np.asarray(slide), side) for number, slide in enumerate(slides)}
    return choose_names(Path("folder"), named)


GRID = np.stack(np.meshgrid(np.arange(12), np.arange(9)), axis=-1).reshape(-1, 2)
RNG = np.random.default_rng(0)
FAR = np.array([[30_000, 20_000], [30_256, 20_000]])


@pytest.mark.parametrize(
    ("slides", "names"),
    [
        ([GRID], "tiles"),
        ([GRID + 1], "tiles"),  # counted from 1
        ([GRID[RNG.permutation(len(GRID))[:60]]], "tiles"),  # only tiles with tissue
        ([GRID * [1, 1] + [200, 150]], "tiles"),  # of a large slide
        ([GRID, [[0, 0]]], "tiles"),
        ([GRID, [[3, 5]]], "tiles"),  # a slide of one tile follows the other slides
        ([GRID * SIDE], "pixels"),
        ([GRID * SIDE + 13], "pixels"),
        ([GRID * SIDE // 2], "pixels"),  # patches that overlap by half
        ([GRID * SIDE // 4 + 30_000], "pixels"),  # by three quarters
        ([GRID * SIDE * 4], "pixels"),
        ([RNG.integers(0, 50_000, (500, 2))], "pixels"),  # at random
        ([FAR, [[3, 5]]], "pixels"),
        ([[[12_345, 700]]], "pixels"),
        ([[[0, 0]]], "pixels"),  # the corner, in either case
    ],
)
def test_the_spacing_of_numbers_decides(slides: list[np.ndarray], names: str) -> None:
    assert _chosen(*slides) == names


@pytest.mark.parametrize(
    "slides",
    [
        [[[3, 5]]],
        [GRID[::7]],  # few tiles, far apart
        [GRID * SIDE // 4],  # patches of a small image
        [GRID, FAR],  # two slides with different meanings
        [GRID + 9_990],
        [np.array([[3, 5], [4, 9], [20, 1]])],
    ],
)
def test_ambiguous_names_are_refused(slides: list[np.ndarray]) -> None:
    with pytest.raises(SourceError, match=r"may be the level-0 pixels .* or columns and rows .*\(--names\)"):
        _chosen(*slides)


@given(
    columns=st.integers(2, 60), rows=st.integers(2, 60), left=st.integers(0, 400), top=st.integers(0, 400),
    fraction=st.floats(0.5, 1), seed=st.integers(0, 99), side=st.sampled_from([64, 224, 256, 512]),
)  # fmt: skip
def test_tiles_are_never_taken_for_pixels(
    columns: int, rows: int, left: int, top: int, fraction: float, seed: int, side: int
) -> None:
    grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
    kept = np.random.default_rng(seed).random(len(grid)) < fraction
    tiles = grid[kept] + (left, top)
    if len(tiles) < 2:
        return
    with contextlib.suppress(SourceError):  # a refusal is right, too
        assert _chosen(tiles, side=side) == "tiles"


@given(
    step=st.sampled_from([1, 2, 4]), columns=st.integers(2, 40), rows=st.integers(1, 40),
    left=st.integers(0, 90_000), top=st.integers(0, 90_000), side=st.sampled_from([64, 224, 256, 512]),
)  # fmt: skip
def test_pixels_are_never_taken_for_tiles(step: int, columns: int, rows: int, left: int, top: int, side: int) -> None:
    grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
    assert _chosen(grid * (side // 2 * step) + (left, top), side=side) == "pixels"


def test_all_names_must_have_two_numbers() -> None:
    assert numbers_in_names("s", [Path("s_1_2.png"), Path("3_4.png")]).tolist() == [[1, 2], [3, 4]]  # type: ignore[union-attr]
    assert numbers_in_names("s", [Path("s_1_2.png"), Path("t_3_4.png")]) is None
    assert numbers_in_names("a.b", [Path("a.b_1_2.png")]) is not None
    assert numbers_in_names("s", []) is None


def test_small_images_between_others_are_not_at_the_edge() -> None:
    numbers = np.array([[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]])
    sizes = [(64, 64), (30, 64), (30, 64), (64, 20), (64, 80), (70, 20)]
    assert edge_tiles(numbers, sizes, 64).tolist() == [False, False, True, True, False, False]


def test_a_small_image_between_tiles_fails_its_slide(tmp_path: Path) -> None:
    _deepzoom(tmp_path / "in/s", 4 * SIDE, 4 * SIDE)
    _picture(30, SIDE).save(tmp_path / "in/s/1_1.jpeg")
    (row,) = import_images(tmp_path / "in", tmp_path / "out", workers=1)
    assert row.status == "failed"
    assert "1_1.jpeg is 30 × 64 pixels" in row.reason


def test_levels_of_a_pyramid_are_not_taken_for_slides(tmp_path: Path) -> None:
    for level, side in enumerate([1, 2, 4, 8]):
        _deepzoom(tmp_path / f"slide_files/{level}", side * 16, side * 16)
    with pytest.raises(SourceError, match="DeepZoom pyramid of one slide: its folders 0 to 3 are levels"):
        import_images(tmp_path / "slide_files", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_hidden_files_are_ignored(tmp_path: Path) -> None:
    _deepzoom(tmp_path / "in/s", 2 * SIDE, 2 * SIDE)
    (tmp_path / "in/s/._0_0.jpeg").write_bytes(b"\0\5\26\7")
    (row,) = import_images(tmp_path / "in", tmp_path / "out", workers=1)
    assert (row.status, row.patches) == ("done", "4")
