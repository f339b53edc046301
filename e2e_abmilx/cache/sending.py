"""One store → a bucket: each scale in random order, so that patches that lie next to each other are a random sample.

A store becomes visible by its last object, ``zarr.json``. Whatever a killed process left is written again: it is never
read, since nothing points to it.
"""

import functools
import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from e2e_abmilx.store import PatchStore, StoreError, StoreFacts, objects
from e2e_abmilx.store.cohort_index import read_facts
from e2e_abmilx.store.format import HEADER, ORDER_SEED, metadata_crc, shard_name, with_crc
from e2e_abmilx.store.locations import ObjectUrl, store_path
from e2e_abmilx.store.summary import SUMMARY, Summary, pack_summary

PUSHED_FROM = "pushed_from"  # the attribute that tells whether a pushed store is still that of the cache
SEED = 0  # of the order, unless another is asked for
_AT_ONCE = 256  # patches that are read for one piece of a shard


def shuffled(seed: int, slide: str, scale: int, num_patches: int) -> NDArray[np.int64]:
    """Return the patches of a scale in the random order of (seed, name of the slide, scale)."""
    return np.random.default_rng([seed, zlib.crc32(slide.encode()), scale]).permutation(num_patches)


def push_store(cache: Path, folder: ObjectUrl, name: str, seed: int) -> StoreFacts:
    """Send a store unless it is there; return its facts.

    Raises:
        StoreError: It is damaged, a different one is there, or it cannot be written.
    """
    store = PatchStore(store_path(cache, name))
    source = fingerprint(store, seed)
    url = folder / f"{name}.zarr"
    found = read_facts(folder, [name]).get(name)
    if found is not None:
        if found.attributes.get(PUSHED_FROM) != source:
            raise StoreError(
                f"{url} is another store than {store.path}, or has another seed; delete it there first (such as by"
                f" `aws s3 rm --recursive {url}`), or push to another place"
            )
        return found
    for problem in store.verify():
        raise StoreError(f"{store.path} is not sent: {problem}")
    return StoreFacts.from_metadata(name, _send(store, url, seed, source))


def fingerprint(store: PatchStore, seed: int) -> str:
    """Return what tells a store from any other, and from itself in another order.

    It is the SHA-256 of metadata, coordinates, and the length of each JPEG stream: what is read without reading the
    patches, which are verified only before they are sent.
    """
    digest = hashlib.sha256(f"{seed} {store.name} {store.checksum}".encode())
    for scale in range(len(store.scales)):
        digest.update(store.coords(scale).astype("<i8").tobytes())
        digest.update(store.stored_bytes(scale).astype("<i8").tobytes())
    return digest.hexdigest()


def _send(store: PatchStore, url: ObjectUrl, seed: int, source: str) -> dict[str, Any]:
    """Write a store; return its metadata."""
    orders = [shuffled(seed, store.name, scale, store.num_patches(scale)) for scale in range(len(store.scales))]
    put = functools.partial(_put, url)
    for scale, order in enumerate(orders):
        size = store.patches_per_shard(scale)
        for shard, start in enumerate(range(0, len(order), size)):
            put(shard_name(scale, shard), _shard(store, scale, order[start : start + size], size))
        if len(order):
            put(f"{scale}/coords/c.0.0", with_crc(store.coords(scale)[order].astype("<i8").tobytes()))
    path = Path(store.path)
    for name in store.other_files():
        put(name, (path / name).read_bytes())
    metadata: dict[str, Any] = json.loads((path / "zarr.json").read_bytes())
    metadata["attributes"] |= {ORDER_SEED: seed, PUSHED_FROM: source}
    metadata["attributes"][HEADER]["crc32c"] = metadata_crc(metadata)
    data = json.dumps(metadata, indent=2).encode()
    coords = [store.coords(scale)[order] for scale, order in enumerate(orders)]
    lengths = [store.stored_bytes(scale)[order].astype(np.uint32) for scale, order in enumerate(orders)]
    put(SUMMARY, pack_summary(Summary(data, coords, lengths)))
    put("zarr.json", data)
    return metadata


def _shard(store: PatchStore, scale: int, patches: NDArray[np.int64], size: int) -> Iterator[bytes]:
    """Yield the pieces of a shard file that holds these patches in their order."""
    lengths = store.stored_bytes(scale)[patches]
    for start in range(0, len(patches), _AT_ONCE):
        yield b"".join(map(with_crc, store.read_encoded(patches[start : start + _AT_ONCE], scale)))
    index = np.full((size, 2), 2**64 - 1, "<u8")
    index[: len(patches)] = np.stack([np.cumsum(lengths) - lengths, lengths], axis=1)
    yield with_crc(index.tobytes())


def _put(url: ObjectUrl, name: str, data: bytes | Iterator[bytes]) -> None:
    objects.put(url.parent, f"{url.name}/{name}", data)
