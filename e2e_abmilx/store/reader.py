"""``PatchStore``, one slide's patches on disk or in object storage.

A store is a zarr v3 group, which zarr-python opens too, far more slowly. Thousands of patches lie one after another in
a shard file that ends in an index; each is a JPEG stream followed by its crc32c.

Letters: N patches of a scale, n patches asked for, P patch side in pixels, (h, w) the size of a small picture of the
slide.
"""

import functools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import imagecodecs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from e2e_abmilx.store.disk_cache import DiskCache
from e2e_abmilx.store.files import open_files
from e2e_abmilx.store.format import (
    CRC_BYTES,
    HEADER,
    ORDER_SEED,
    check_node,
    patches_per_shard,
    problems_of,
    without_crc,
)
from e2e_abmilx.store.locations import Location, as_location
from e2e_abmilx.store.scale_reader import ScaleReader


class PatchStore:
    """One slide's patches, read at random.

    Opening reads one small JSON file. A shard is opened when one of its patches is first read, and a process keeps at
    most ``OPEN_SHARDS`` of them open over all stores. A pickled store is only its path.

    In object storage, opening a store that ``e2e-abmilx push`` wrote is one GET, and the patches of a read are asked for
    together, those that lie next to each other as one range. Requests that fail are repeated; credentials come from the
    environment. The extra ``cloud`` is needed.

    Every patch is checked against its checksum before it is decoded: damage raises an error and never returns wrong
    pixels.

    Args:
        path: The ``<slide>.zarr`` folder, or its URL: ``s3://``, ``gs://``, ``az://``, ``https://``, ``http://`` or
            ``file://``.
        local_cache: Where patches read from object storage are kept on a local disk; by default nowhere.

    Attributes:
        path: The folder, a ``Path``; of object storage the URL, a string.
        name: Name of the slide: that of the folder, without ``.zarr``.
        scales: µm per pixel of each scale, finest first; NaN where unknown.
        patch_size: Side P of a patch in pixels, the same at every scale.
        attributes: What the builder of the store recorded about the slide and its settings.
        order_seed: Seed of the random order in which the patches of each scale lie; None if they lie in the order in which
            they were written, which for a cached slide is row by row.
        checksum: crc32c of the metadata, eight hexadecimal digits.

    Raises:
        StoreError: If the store is missing, foreign, damaged or of another format version, or cannot be reached.
    """

    def __init__(self, path: str | Path, local_cache: DiskCache | None = None) -> None:
        self._local_cache = local_cache
        self.path = as_location(path)
        self.name = self.path.name.removesuffix(".zarr")
        self._files = open_files(self.path)
        attributes = dict(self._files.metadata["attributes"])
        header = attributes.pop(HEADER)
        self.attributes: Mapping[str, Any] = MappingProxyType(attributes)
        self.scales: tuple[float, ...] = tuple(math.nan if mpp is None else mpp for mpp in header["mpp"])
        self.patch_size: int = header["patch_size"]
        self.order_seed: int | None = attributes.get(ORDER_SEED)
        self.checksum: str = header["crc32c"]
        self._nodes: dict[str, Any] = self._files.metadata["consolidated_metadata"]["metadata"]
        self._scales = [
            self._files.scale(
                number,
                self._nodes[f"{number}/patches"]["shape"][0],
                patches_per_shard(self._files.metadata, number),
                local_cache,
            )
            for number in range(len(self.scales))
        ]

    def __reduce__(self) -> tuple[type[Self], tuple[Location, DiskCache | None]]:
        return type(self), (self.path, self._local_cache)

    def __repr__(self) -> str:
        pairs = zip(self._scales, self.scales, strict=True)
        scales = ", ".join(f"{scale.num_patches} patches at {mpp:g} µm/px" for scale, mpp in pairs)
        return f"PatchStore({str(self.path)!r}: {scales})"

    def num_patches(self, scale: int = 0) -> int:
        """Return the number N of patches at a scale."""
        return self._scale(scale).num_patches

    def coords(self, scale: int = 0) -> NDArray[np.int64]:
        """Return the level-0 (x, y) of each patch's top left corner, shape (N, 2); (-1, -1) where unknown."""
        num_patches = self.num_patches(scale)
        if num_patches == 0:
            return np.empty((0, 2), np.int64)
        return self._files.coords(scale).reshape(num_patches, 2)

    def read(self, indices: ArrayLike, scale: int = 0) -> NDArray[np.uint8]:
        """Decode patches, RGB, shape (n, P, P, 3), in the order asked; any number of threads may call it.

        Args:
            indices: Which patches, shape (n,), each in 0 to N - 1; duplicates are allowed.
            scale: Index into ``scales``.

        Raises:
            TypeError: If the indices are not a flat list of integers.
            IndexError: If an index or the scale lies outside the store.
            StoreError: If a patch is missing or damaged.
        """
        chosen = self._scale(scale)
        wanted = chosen.checked(indices)
        patches = np.empty((len(wanted), self.patch_size, self.patch_size, 3), np.uint8)
        chosen.decode(wanted, patches)
        return patches

    def read_encoded(self, indices: ArrayLike, scale: int = 0) -> list[bytes]:
        """Return the JPEG streams of patches, for decoding elsewhere, such as on a GPU; as :meth:`read` otherwise."""
        chosen = self._scale(scale)
        return [data[:-CRC_BYTES] for data in chosen.chunks(chosen.checked(indices))]

    def stored_bytes(self, scale: int = 0) -> NDArray[np.int64]:
        """Return the bytes that each patch takes, its JPEG stream and its checksum, shape (N,)."""
        return self._scale(scale).lengths()

    def patches_per_shard(self, scale: int = 0) -> int:
        """Return the number S of patches in each shard file but the last."""
        return self._scale(scale).patches_per_shard

    def other_files(self) -> list[str]:
        """Return the names of all files but the shards, the coordinates and the group's own ``zarr.json``."""
        pictures = {"thumbnail": "thumbnail/c.0.0.0", "tissue": "tissue/c.0.0"}
        nodes = [f"{name}/zarr.json" for name in self._nodes]
        return [*nodes, *(file for name, file in pictures.items() if name in self._nodes)]

    def thumbnail(self) -> NDArray[np.uint8] | None:
        """Return the thumbnail of the whole slide, RGB, shape (h, w, 3); None if the store has none."""
        if "thumbnail" not in self._nodes:
            return None
        return imagecodecs.jpeg8_decode(self._checked("thumbnail/c.0.0.0"))

    def tissue(self) -> NDArray[np.bool_] | None:
        """Return the tissue mask of the whole slide, shape (h, w); None if the store has none."""
        if "tissue" not in self._nodes:
            return None
        data = imagecodecs.zstd_decode(self._checked("tissue/c.0.0"))
        return np.frombuffer(data, np.bool_).reshape(self._nodes["tissue"]["shape"])

    def verify(self) -> Iterator[str]:
        """Check every checksum and decode every patch.

        Yields:
            One sentence per problem, naming scale and patch; nothing for a sound store.
        """
        for name, node in self._nodes.items():
            yield from problems_of(functools.partial(self._check_node, name, node))
        yield from problems_of(self.thumbnail)
        yield from problems_of(self.tissue)
        for number, scale in enumerate(self._scales):
            yield from problems_of(functools.partial(self.coords, number))
            yield from scale.problems(self.patch_size)

    def _checked(self, name: str) -> bytes:
        return without_crc(self._files.read(name), self.path / name)

    def _check_node(self, name: str, node: dict[str, Any]) -> None:
        check_node(self._files.read(f"{name}/zarr.json"), self.path / name, node)

    def _scale(self, scale: int) -> ScaleReader:
        if not 0 <= scale < len(self._scales):
            raise IndexError(f"{self.path} has scales 0 to {len(self._scales) - 1}, not {scale}; see its `scales`")
        return self._scales[scale]
