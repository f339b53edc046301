"""Exported coordinates are correct in viewers that crop a slide to its bounds, and state their origin."""

import json
from pathlib import Path

import h5py
import numpy as np
import openslide
import pytest
import tifffile
import torch
import zarr
from numpy.typing import NDArray
from PIL import Image

from e2e_abmilx.cache import cache_slides
from e2e_abmilx.cache.imports import import_coords
from e2e_abmilx.data.features import TridentWriter, describe_patches, read_features
from e2e_abmilx.heatmaps import SlideAttention, draw_contact_sheet, write_geojson, write_ome_zarr
from e2e_abmilx.slides.bounds import read_bounds
from e2e_abmilx.store import PatchStore, StoreWriter

OFFSET, SIZE = (700, 400), (1280, 1024)  # of the image in the slide, and its width and height, level-0 pixels
NM = 500  # nm per pixel

IMAGE = """
<image name="{name}" uuid="{name}"><creationDate>2020-01-01T00:00:00Z</creationDate><device model="SCN400" version="1"/>
<pixels sizeX="{px}" sizeY="{py}">{levels}</pixels>
<view sizeX="{nx}" sizeY="{ny}" offsetX="{x}" offsetY="{y}" spacingZ="0"/>
<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings><illuminationSettings>
<numericalAperture>0.4</numericalAperture><illuminationSource>brightfield</illuminationSource>
</illuminationSettings></scanSettings></image>"""


def _write_leica(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a Leica slide (SCN): a macro page of the whole slide, and a picture in two levels on a part of it."""
    (width, height), (left, top) = SIZE, OFFSET
    nx, ny = (left + width + 300) * NM, (top + height + 200) * NM
    macro = np.full((ny // NM // 16, nx // NM // 16, 3), 240, np.uint8)
    level = '<dimension sizeX="{}" sizeY="{}" r="{}" ifd="{}"/>'
    whole = IMAGE.format(
        name="macro", px=macro.shape[1], py=macro.shape[0], nx=nx, ny=ny, x=0, y=0,
        levels=level.format(macro.shape[1], macro.shape[0], 0, 0),
    )  # fmt: skip
    main = IMAGE.format(
        name="main", px=width, py=height, nx=width * NM, ny=height * NM, x=left * NM, y=top * NM,
        levels=level.format(width, height, 0, 1) + level.format(width // 2, height // 2, 1, 2),
    )  # fmt: skip
    scn = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" uuid="scn">'
        f'<collection name="c" uuid="c" sizeX="{nx}" sizeY="{ny}"><barcode>YQ==</barcode>{whole}{main}</collection></scn>'
    )
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for number, page in enumerate((macro, picture, picture[::2, ::2])):
            shrink = (16, 1, 2)[number]
            file.write(
                np.ascontiguousarray(page), description=scn if number == 0 else None, photometric="rgb",
                tile=(256, 256), compression="jpeg", compressionargs={"level": 95}, metadata=None,
                resolution=(1e7 / NM / shrink,) * 2, resolutionunit="CENTIMETER", subfiletype=int(number == 2),
            )  # fmt: skip


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    """Tissue in which each place looks different."""
    noise = np.random.default_rng(0).normal((195, 112, 180), 24, (SIZE[1] // 16, SIZE[0] // 16, 3))
    return np.kron(noise, np.ones((16, 16, 1))).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def leica(tmp_path_factory: pytest.TempPathFactory, picture: NDArray[np.uint8]) -> Path:
    """The Leica slide."""
    path = tmp_path_factory.mktemp("leica") / "leica.scn"
    _write_leica(path, picture)
    return path


@pytest.fixture(scope="module")
def store(leica: Path) -> PatchStore:
    """Its patches."""
    out = leica.with_name("out")
    (row,) = cache_slides(leica, out, mpp=(0.5, 1.0), patch_size=64, min_tissue=0.9)
    assert row.status == "done"
    return PatchStore(out / "leica.zarr")


def _attention(store: PatchStore) -> SlideAttention:
    coords = np.concatenate([store.coords(scale) for scale in range(2)])
    scale = np.repeat([0, 1], [store.num_patches(0), store.num_patches(1)])
    weights = np.full((1, len(coords)), 1 / len(coords), np.float32)
    return SlideAttention.from_weights(store, coords, scale, weights)


def _difference(store: PatchStore, index: int, scale: int, region: NDArray[np.uint8]) -> float:
    """Return the mean difference, in grey levels, between a patch and the region that a viewer shows."""
    side = store.patch_size
    shown = np.asarray(Image.fromarray(region).resize((side, side), Image.Resampling.BOX)).astype(float)
    return float(np.abs(store.read([index], scale)[0] - shown).mean())


def test_squares_are_correct_in_a_view_that_is_cropped_to_the_bounds(
    store: PatchStore, leica: Path, picture: NDArray[np.uint8], tmp_path: Path
) -> None:
    attention = _attention(store)
    write_geojson(attention, tmp_path / "patches.geojson")
    collection = json.loads((tmp_path / "patches.geojson").read_text(encoding="utf-8"))
    with openslide.OpenSlide(leica) as slide:
        stated = [int(slide.properties[f"openslide.bounds-{field}"]) for field in ("x", "y")]
    assert collection["e2e_abmilx"]["origin"] == stated == list(OFFSET)
    assert "--no-crop" in collection["e2e_abmilx"]["about"]
    inside = 0
    for number, feature in enumerate(collection["features"]):
        corners = np.array(feature["geometry"]["coordinates"][0])
        (left, top), (right, bottom) = corners.min(axis=0).astype(int), corners.max(axis=0).astype(int)
        if min(left, top) < 0 or right > SIZE[0] or bottom > SIZE[1]:
            continue  # over the edge of the picture
        scale = int(attention.scale[number])
        index = number - scale * store.num_patches(0)
        assert _difference(store, index, scale, picture[top:bottom, left:right]) < 6  # JPEG, twice
        inside += 1
    assert inside >= 150
    assert 0 <= corners.min() < corners.max() <= max(SIZE)


@pytest.mark.parametrize(("bounds", "about"), [({"slide_bounds": None}, "QuPath's too"), ({}, "does not know")])
def test_without_bounds_nothing_is_moved(
    store: PatchStore, tmp_path: Path, bounds: dict[str, None], about: str
) -> None:
    other = tmp_path / "leica.zarr"
    kept = ("slide_size", "slide_mpp", "footprints")
    attributes = {**{name: store.attributes[name] for name in kept}, **bounds}  # without: as in an older cache
    with StoreWriter(other, store.scales, patch_size=store.patch_size, attributes=attributes) as writer:
        thumbnail = store.thumbnail()
        assert thumbnail is not None
        writer.write_thumbnail(thumbnail)
        for scale in range(2):
            writer.write(store.read(np.arange(store.num_patches(scale)), scale), store.coords(scale), scale)
    attention = _attention(PatchStore(other))
    write_geojson(attention, tmp_path / "patches.geojson")
    collection = json.loads((tmp_path / "patches.geojson").read_text(encoding="utf-8"))
    assert collection["e2e_abmilx"]["origin"] == [0, 0]
    assert about in collection["e2e_abmilx"]["about"]
    assert collection["features"][0]["geometry"]["coordinates"][0][0] == store.coords()[0].tolist()
    note = draw_contact_sheet(attention).texts[-1]
    assert note.get_text() == "(x, y): level-0 pixels from the corner of the whole slide"


def test_pictures_layers_and_features_state_their_origin(store: PatchStore, tmp_path: Path) -> None:
    attention = _attention(store)
    sheet = draw_contact_sheet(attention)
    counted = "(x, y): level-0 pixels from the corner of the whole slide"
    assert sheet.texts[-1].get_text() == f"{counted}; QuPath counts from (700, 400)"
    write_ome_zarr(attention, tmp_path / "layer.ome.zarr")
    said = zarr.open_group(tmp_path / "layer.ome.zarr", mode="r").attrs["e2e_abmilx"]
    assert (said["origin"], said["openslide_bounds"]) == ([0, 0], [*OFFSET, *SIZE])
    coords = store.coords()
    writer = TridentWriter(
        tmp_path / "leica.h5", len(coords), coords, {"features": {}, "coords": describe_patches(store)}
    )
    writer.write(torch.zeros(len(coords), 3))
    writer.finish()
    with h5py.File(tmp_path / "leica.h5") as file:
        assert "openslide.bounds-x and -y are not subtracted" in file.attrs["coords_origin"]
        assert (file["coords"].attrs["bounds_x"], file["coords"].attrs["bounds_y"]) == OFFSET
    assert np.array_equal(read_features(tmp_path / "leica.h5").coords(), coords)


def test_imported_coordinates_count_from_the_whole_slide(
    leica: Path, picture: NDArray[np.uint8], tmp_path: Path
) -> None:
    (tmp_path / "coords").mkdir()
    places = np.array([[128, 64], [640, 320]])
    with h5py.File(tmp_path / "coords/leica_patches.h5", "w") as file:
        file["coords"] = places + OFFSET
        file["coords"].attrs.update(patch_size=64, patch_size_level0=64)
    (row,) = import_coords(tmp_path / "coords", leica, tmp_path / "out")
    assert row.status == "done"
    store = PatchStore(tmp_path / "out/leica.zarr")
    assert store.attributes["slide_bounds"] == [*OFFSET, *SIZE]
    for index, (x, y) in enumerate(places):
        assert _difference(store, index, 0, picture[y : y + 64, x : x + 64]) < 6


@pytest.mark.parametrize(
    ("properties", "bounds"),
    [
        ({}, None),
        ({f"tiffslide.bounds-{field}": None for field in ("x", "y", "width", "height")}, None),
        ({"openslide.bounds-x": "5", "openslide.bounds-y": "6"}, None),  # QuPath crops to all four or to none
        ({f"openslide.bounds-{field}": "1.5" for field in ("x", "y", "width", "height")}, None),
        ({f"openslide.bounds-{field}": "7" for field in ("x", "y", "width", "height")}, [7, 7, 7, 7]),
        ({f"tiffslide.bounds-{field}": 0 for field in ("x", "y", "width", "height")}, [0, 0, 0, 0]),
    ],
)
def test_bounds_are_all_four_or_none(properties: dict[str, object], bounds: list[int] | None) -> None:
    assert read_bounds(properties) == bounds
