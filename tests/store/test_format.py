"""The format: zarr-python reads it, FORMAT.md describes it, and foreign or edited metadata are refused."""

import io
import json
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from google_crc32c import value as crc32c
from PIL import Image
from small_stores import ATTRIBUTES, COUNTS, P, textures

from e2e_abmilx.store import PatchStore, StoreError, format, write_store, writer


def test_zarr_python_reads_the_same(path: Path, store: PatchStore) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(path, mode="r")
        for scale, count in enumerate(COUNTS):
            array = group[f"{scale}/patches"]
            assert array.shape == (count, P, P, 3)
            assert (array[:] == store.read(range(count), scale)).all()
            assert (group[f"{scale}/coords"][:] == store.coords(scale)).all()
        chosen = [2, 6, 7, 19]
        assert (group["0/patches"].oindex[chosen] == store.read(chosen)).all()
        assert (group["0/patches"][5:9, 3:7, ::2] == store.read(range(5, 9))[:, 3:7, ::2]).all()
        assert (group["thumbnail"][:] == store.thumbnail()).all()
        assert (group["tissue"][:] == store.tissue()).all()
    assert group.attrs["slide_mpp"] == ATTRIBUTES["slide_mpp"]
    assert group.attrs["e2e_abmilx"]["mpp"] == [0.5, 1.0, None]


def test_the_program_in_the_format_description_reads_a_store(path: Path, store: PatchStore) -> None:
    page = Path(format.__file__).with_name("FORMAT.md").read_text(encoding="utf-8")
    program: dict[str, Any] = {}
    exec(page.split("```python")[1].split("```")[0], program)
    for scale, count in enumerate(COUNTS):
        jpegs = [program["jpeg"](path, scale, patch) for patch in range(count)]
        assert jpegs == store.read_encoded(range(count), scale)
        for jpeg, pixels in zip(jpegs, store.read(range(count), scale), strict=True):
            assert (np.asarray(Image.open(io.BytesIO(jpeg))) == pixels).all()


def test_checksums_are_where_the_format_description_says(path: Path) -> None:
    shard = (path / "0" / "patches" / "c.1.0.0.0").read_bytes()
    index = shard[-16 * 7 - 4 : -4]
    assert struct.unpack("<I", shard[-4:]) == (crc32c(index),)
    for offset, length in struct.iter_unpack("<QQ", index):
        (checksum,) = struct.unpack("<I", shard[offset + length - 4 : offset + length])
        assert checksum == crc32c(shard[offset : offset + length - 4])
    text = json.loads((path / "zarr.json").read_text(), parse_constant=pytest.fail)
    checksum = text["attributes"]["e2e_abmilx"].pop("crc32c")
    assert int(checksum, 16) == crc32c(json.dumps(text, sort_keys=True, separators=(",", ":")).encode())


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no patch store at .*gone\.zarr.*run `e2e-abmilx cache` first"):
        PatchStore(tmp_path / "gone.zarr")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xd8\xff",
        b"[]",
        b"1",
        b"null",
        b"[" * 100_000,
        b'{"attributes": null}',
        b'{"attributes": {"e2e_abmilx": 1}}',
        b'{"attributes": {"e2e_abmilx": {"format_version": 1}}}',
    ],
)
def test_a_folder_that_is_not_a_store_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "zarr.json").write_bytes(content)
    with pytest.raises(StoreError, match="is not a patch store"):
        PatchStore(tmp_path)


def test_a_foreign_zarr_group_is_refused(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "a.zarr").create_array("patches", shape=(3, P, P, 3), dtype="uint8")
    with pytest.raises(StoreError, match="is not a patch store"):
        PatchStore(tmp_path / "a.zarr")


def test_another_format_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        later.setattr(writer, "FORMAT_VERSION", 2)
        later.setattr(format, "FORMAT_VERSION", 2)
        write_store(tmp_path / "a.zarr", {0.5: (textures(1), None)})
    with pytest.raises(StoreError, match="has format version 2 and this release reads 1"):
        PatchStore(tmp_path / "a.zarr")


def test_edited_metadata_are_refused(tmp_path: Path) -> None:
    path = write_store(tmp_path / "a.zarr", {0.5: (textures(1), None)}).path
    text = (path / "zarr.json").read_text()
    (path / "zarr.json").write_text(text.replace("0.5", "0.25"))
    with pytest.raises(StoreError, match="edited or damaged"):
        PatchStore(path)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [({"e2e_abmilx": 1}, "reserved"), ({"mpp": float("inf")}, "use None"), ({"path": Path("a")}, "plain JSON")],
)
def test_attributes_that_json_cannot_hold_are_refused(attributes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        format.plain_json(attributes)


def test_attributes_become_what_a_reader_sees() -> None:
    assert format.plain_json({"sides": (1, 2), "of": {3: None}}) == {"sides": [1, 2], "of": {"3": None}}


def test_a_checksum_covers_the_content() -> None:
    data = format.with_crc(b"content")
    assert format.without_crc(data, "a file") == b"content"
    with pytest.raises(StoreError, match="a file is damaged: its checksum does not match"):
        format.without_crc(b"C" + data[1:], "a file")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    store = write_store(tmp_path / "a.zarr", {0.5: (textures(1), None)})
    (tmp_path / "a.zarr/0/coords/c.0.0").unlink()
    with pytest.raises(StoreError, match=r"a\.zarr/0/coords/c\.0\.0 cannot be read: No such file.*rebuild"):
        store.coords()
