"""The JPEG codec: zarr finds it and encodes with it as the store does."""

import os
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import zarr
from small_stores import P, textures
from zarr.codecs import Crc32cCodec

from e2e_abmilx import store as store_package
from e2e_abmilx.store import JpegCodec, write_store
from e2e_abmilx.store.codec import encode_patch, jpeg_shape


def test_zarr_encodes_as_the_store_does(tmp_path: Path) -> None:
    patches = textures(3)
    array = zarr.create_array(
        tmp_path / "own.zarr",
        shape=patches.shape,
        chunks=(1, P, P, 3),
        dtype="uint8",
        serializer=JpegCodec(level=90, subsampling="444"),
        compressors=[Crc32cCodec()],
    )
    array[:] = patches
    ours = write_store(tmp_path / "ours.zarr", {0.5: (patches, None)}, quality=90)
    assert (zarr.open_array(tmp_path / "own.zarr", mode="r")[:] == ours.read(range(3))).all()


@pytest.mark.skipif(
    JpegCodec.__module__.startswith("imagecodecs"),
    reason="imagecodecs brings its own codec, which supports all settings",
)
def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\['tables'\].*install imagecodecs-zarr"):
        JpegCodec.from_dict({"name": "imagecodecs_jpeg", "configuration": {"level": 90, "tables": "AA=="}})


def test_zarr_finds_the_codec_by_the_entry_point(path: Path, tmp_path: Path) -> None:
    """A program that imports only zarr can read a store if the package is installed."""
    installed = tmp_path / "a_package-0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: a-package\nVersion: 0\n")
    line = "imagecodecs_jpeg = e2e_abmilx.store:JpegCodec"
    (installed / "entry_points.txt").write_text(f"[zarr.codecs]\n{line}\n")
    program = "import sys, zarr; print(zarr.open_group(sys.argv[1], mode='r')['0/patches'][3].shape)"
    here = str(Path(store_package.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, path],
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), here, *filter(None, sys.path)])},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == f"({P}, {P}, 3)", done.stderr


def test_importing_the_store_does_not_import_torch() -> None:
    program = "import sys, e2e_abmilx.store; sys.exit('torch' in sys.modules)"
    here = Path(store_package.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", program], cwd=here, check=False).returncode == 0


def test_an_encoded_patch_has_the_settings_asked_for() -> None:
    (patch,) = textures(1, side=64)
    sizes = {
        (quality, chroma): len(encode_patch(patch, quality, chroma))
        for quality, chroma in ((90, "444"), (90, "420"), (50, "444"))
    }
    assert sizes[90, "444"] > sizes[90, "420"]
    assert sizes[90, "444"] > sizes[50, "444"]
    turned = patch.swapaxes(0, 1)  # not contiguous
    assert encode_patch(turned, 90, "444") == encode_patch(turned.copy(), 90, "444")


def test_the_shape_of_a_stream_is_read_from_its_header() -> None:
    pixels = np.zeros((24, 40, 3), np.uint8)
    assert jpeg_shape(imagecodecs.jpeg8_encode(pixels)) == (24, 40, 3)
    assert jpeg_shape(imagecodecs.jpeg8_encode(pixels[..., 0].copy())) == (24, 40, 1)


@pytest.mark.parametrize("stream", [b"", b"\xff\xd8\xff\xd9", b"\xff\xd8\xff\xc0\xff\xd9", b"\x89PNG\r\n"])
def test_other_bytes_have_no_shape(stream: bytes) -> None:
    with pytest.raises(ValueError, match="not a complete baseline JPEG"):
        jpeg_shape(stream)
