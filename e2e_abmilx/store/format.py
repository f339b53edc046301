"""The parts of the store format that reader and writer share: arrays, metadata, checksums (see ``FORMAT.md``)."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from google_crc32c import value as crc32c
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec

from e2e_abmilx.errors import InputError

FORMAT_VERSION = 1
HEADER = "e2e_abmilx"  # the package's own attribute of the group; all others belong to whoever built the store
ORDER_SEED = "patch_order_seed"  # the attribute of a store whose patches lie in random order
CRC_BYTES = 4
CRC_RESIDUE = 0x48674BC7  # crc32c of any message that is followed by its own crc32c
ABSENT = 2**64 - 1  # offset and length, in a shard's index, of a patch that the shard does not hold


class StoreError(InputError):
    """A patch store is missing, foreign, damaged or cannot be written; the message says what to do."""


class ReachError(StoreError):
    """Object storage does not answer, or refuses to: nothing is known about the store."""


def create_array(
    root: zarr.Group,
    name: str,
    dimensions: tuple[str, ...],
    **layout: Any,  # noqa: ANN401
) -> "zarr.Array[Any]":
    """Create an array of a store; ``layout`` is passed on to zarr."""
    return root.create_array(
        name,
        **{"compressors": [Crc32cCodec()], **layout},
        filters=None,
        fill_value=0,
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=dimensions,
        config={"write_empty_chunks": True},  # so that a missing file always means damage, never zeros
    )


def write_array(
    root: zarr.Group,
    name: str,
    data: NDArray[Any],
    dimensions: tuple[str, ...],
    **codecs: Any,  # noqa: ANN401
) -> None:
    """Write an array as a single chunk."""
    chunk = tuple(max(length, 1) for length in data.shape)
    array = create_array(root, name, dimensions, dtype=data.dtype, shape=data.shape, chunks=chunk, **codecs)
    array[...] = data


def plain_json(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as a reader of their JSON will see them; refuse what JSON cannot hold."""
    if HEADER in attributes:
        raise ValueError(f"the attribute {HEADER!r} is reserved for the store itself; choose another name")
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(attributes), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"attributes must be plain JSON values: {error}; use None for an unknown number") from error
    return plain


def parse_metadata(data: bytes, where: object) -> dict[str, Any]:
    """Return the content of the ``zarr.json`` of a store's group; refuse what is damaged or of another version."""
    try:
        metadata: dict[str, Any] = json.loads(data)
        header = metadata["attributes"][HEADER]
        version, checksum = header["format_version"], header["crc32c"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(f"{where} is not a patch store, or its zarr.json is damaged; rebuild it") from error
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{where} has format version {version} and this release reads {FORMAT_VERSION}; "
            "rebuild it or install the release that wrote it"
        )
    if checksum != metadata_crc(metadata):
        raise StoreError(f"{where} has a zarr.json that was edited or damaged after it was written; rebuild it")
    return metadata


def add_metadata_checksum(path: Path) -> None:
    """Add the checksum of a group's finished ``zarr.json`` to the file itself."""
    metadata = json.loads(path.read_bytes())
    metadata["attributes"][HEADER]["crc32c"] = metadata_crc(metadata)
    path.write_text(json.dumps(metadata, indent=2), encoding="utf-8")


def metadata_crc(metadata: dict[str, Any]) -> str:
    """Return the crc32c of the metadata, without the checksum's own entry, as compact JSON with sorted keys."""
    header = {key: value for key, value in metadata["attributes"][HEADER].items() if key != "crc32c"}
    bare = {**metadata, "attributes": {**metadata["attributes"], HEADER: header}}
    return f"{crc32c(json.dumps(bare, sort_keys=True, separators=(',', ':')).encode()):08x}"


def check_node(data: bytes, where: object, expected: dict[str, Any]) -> None:
    """Refuse the ``zarr.json`` of a subgroup or an array that differs from its copy in that of the store's group."""
    try:
        found = json.loads(data)
        same = {**found, "consolidated_metadata": None} == {**expected, "consolidated_metadata": None}
    except (ValueError, TypeError) as error:
        raise StoreError(f"{where} has no readable zarr.json: {error}; rebuild this store") from error
    if not same:
        raise StoreError(f"{where} has a zarr.json that differs from its copy in the group; rebuild this store")


def with_crc(data: bytes) -> bytes:
    """Return data followed by its crc32c."""
    checksum: int = crc32c(data)
    return data + checksum.to_bytes(CRC_BYTES, "little")


def without_crc(data: bytes, where: object) -> bytes:
    """Return the content of a file that ends in its crc32c, without it; refuse a damaged file."""
    if crc32c(data) != CRC_RESIDUE:
        raise StoreError(f"{where} is damaged: its checksum does not match; rebuild this store")
    return data[:-CRC_BYTES]


def parse_index(data: bytes, num_chunks: int, start: int, where: object) -> NDArray[np.uint64]:
    """Return the offset and length of each chunk of a shard, shape ``(num_chunks, 2)``, from its index at ``start``.

    Raises:
        ValueError: The index is damaged.
    """
    if crc32c(data) != CRC_RESIDUE or len(data) != 16 * num_chunks + CRC_BYTES:
        raise ValueError(f"the checksum of the index of {where} does not match")
    index = np.frombuffer(data, "<u8", 2 * num_chunks).reshape(num_chunks, 2)
    if (index[index[:, 0] != ABSENT] > start).any():
        raise ValueError(f"the index of {where} points outside the file")
    return index


def shard_name(scale: int, shard: int) -> str:
    """Return the name of a shard file within its store."""
    return f"{scale}/patches/c.{shard}.0.0.0"


def patches_per_shard(metadata: Mapping[str, Any], scale: int) -> int:
    """Return the number S of patches per shard of a scale."""
    node = metadata["consolidated_metadata"]["metadata"][f"{scale}/patches"]
    size: int = node["chunk_grid"]["configuration"]["chunk_shape"][0]
    return size


def problems_of(check: Callable[[], object]) -> Iterator[str]:
    """Run a check; yield the message of the StoreError that it raises, if any, unless nothing can be checked."""
    try:
        check()
    except ReachError:
        raise
    except StoreError as error:
        yield str(error)
