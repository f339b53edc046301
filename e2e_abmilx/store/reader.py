"""One slide's patches on disk: a zarr v3 group that zarr-python opens, and a far faster reader of it.

``<slide>.zarr`` holds for each scale ``<scale>/patches``, uint8 (N, P, P, 3), and ``<scale>/coords``, int64
(N, 2); for the slide ``thumbnail`` and ``tissue``. A patch is a JPEG stream followed by its crc32c, and
thousands of them lie one after another in a shard file that ends in an index. ``STORE_FORMAT.md``, beside
this file, describes every byte.

Letters: N patches of a scale, n patches asked for or appended, P patch side in pixels, (h, w) the size of a
small picture of the slide.
"""

import functools
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import imagecodecs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from e2e_abmilx.store.format import CRC_BYTES, HEADER, check_node, problems_of, read_checked, read_metadata
from e2e_abmilx.store.shards import ScaleReader

_SHARES = (
    4  # parts of a read a thread, so that a thread whose core is busy elsewhere leaves some to the others
)


class PatchStore:
    """One slide's patches, read at random.

    Opening reads one small JSON file. A shard is opened when a patch of it is first read, and a process keeps
    at most ``OPEN_SHARDS`` of them open, however many stores it holds. A pickled store is its path.

    Every patch is checked against its checksum before it is decoded: a damaged one is an error, never a wrong
    picture.

    Args:
        path: The ``<slide>.zarr`` folder.

    Raises:
        StoreError: If the folder is missing, foreign, damaged or of another format version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        metadata, modified_ns = read_metadata(self.path)
        header = metadata["attributes"].pop(HEADER)
        self._attributes = MappingProxyType(metadata["attributes"])
        self._nodes: dict[str, Any] = metadata["consolidated_metadata"]["metadata"]
        self._patch_size: int = header["patch_size"]
        self._scales: list[ScaleReader] = []
        for number, mpp in enumerate(header["mpp"]):
            node = self._nodes[f"{number}/patches"]
            scale = ScaleReader(
                store=self.path,
                number=number,
                mpp=math.nan if mpp is None else mpp,
                num_patches=node["shape"][0],
                patches_per_shard=node["chunk_grid"]["configuration"]["chunk_shape"][0],
                modified_ns=modified_ns,
            )
            self._scales.append(scale)

    def __reduce__(self) -> tuple[type[Self], tuple[Path]]:
        return type(self), (self.path,)

    def __repr__(self) -> str:
        scales = ", ".join(f"{scale.num_patches} patches at {scale.mpp:g} µm/px" for scale in self._scales)
        return f"PatchStore({str(self.path)!r}: {scales})"

    @property
    def name(self) -> str:
        """The slide's name: the folder's without ``.zarr``."""
        return self.path.name.removesuffix(".zarr")

    @property
    def scales(self) -> tuple[float, ...]:
        """µm per pixel of each scale, finest first; NaN where unknown."""
        return tuple(scale.mpp for scale in self._scales)

    @property
    def patch_size(self) -> int:
        """Side P of a patch in pixels, the same at every scale."""
        return self._patch_size

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What the builder recorded about the slide and its settings."""
        return self._attributes

    def num_patches(self, scale: int = 0) -> int:
        """Number N of patches at a scale."""
        return self._scale(scale).num_patches

    def coords(self, scale: int = 0) -> NDArray[np.int64]:
        """Level-0 (x, y) of each patch's top left corner, shape (N, 2); (-1, -1) where unknown."""
        num_patches = self.num_patches(scale)
        if num_patches == 0:
            return np.empty((0, 2), np.int64)
        data = read_checked(self.path / str(scale) / "coords" / "c.0.0")
        return np.frombuffer(data, "<i8").reshape(num_patches, 2).astype(np.int64)

    def read(self, indices: ArrayLike, scale: int = 0, *, threads: int = 1) -> NDArray[np.uint8]:
        """Decode patches, RGB, shape (n, P, P, 3), in the order asked.

        Args:
            indices: Which patches, shape (n,), each in 0 to N - 1; duplicates are allowed.
            scale: Index into ``scales``.
            threads: How many threads decode; more than one helps where no other process wants the cores.

        Raises:
            TypeError: If the indices are not a flat list of integers.
            IndexError: If an index or the scale lies outside the store.
            StoreError: If a patch is missing or damaged.
        """
        chosen = self._scale(scale)
        wanted = chosen.checked(indices)
        patches = np.empty((len(wanted), self._patch_size, self._patch_size, 3), np.uint8)
        if threads == 1:
            chosen.decode(wanted, patches)
            return patches
        # A pool for each call costs 0.1 ms and leaves nothing behind that a fork could break.
        with ThreadPoolExecutor(threads) as pool:
            size = math.ceil(len(wanted) / (_SHARES * threads)) or 1
            shares = [
                pool.submit(chosen.decode, wanted[start : start + size], patches[start : start + size])
                for start in range(0, len(wanted), size)
            ]
            for share in shares:
                share.result()
        return patches

    def read_encoded(self, indices: ArrayLike, scale: int = 0) -> list[bytes]:
        """The JPEG streams of patches, in the order asked, for decoding elsewhere, such as on a GPU.

        Args:
            indices: Which patches, shape (n,), each in 0 to N - 1; duplicates are allowed.
            scale: Index into ``scales``.

        Raises:
            IndexError: If an index or the scale lies outside the store.
            StoreError: If a patch is missing or damaged.
        """
        chosen = self._scale(scale)
        return [data[:-CRC_BYTES] for data in chosen.chunks(chosen.checked(indices))]

    def thumbnail(self) -> NDArray[np.uint8] | None:
        """The slide from afar, RGB, shape (h, w, 3); None if the builder stored none."""
        if "thumbnail" not in self._nodes:
            return None
        return imagecodecs.jpeg8_decode(read_checked(self.path / "thumbnail" / "c.0.0.0"))

    def tissue(self) -> NDArray[np.bool_] | None:
        """The tissue mask over the whole slide, shape (h, w); None if the builder stored none."""
        if "tissue" not in self._nodes:
            return None
        data = imagecodecs.zstd_decode(read_checked(self.path / "tissue" / "c.0.0"))
        return np.frombuffer(data, np.bool_).reshape(self._nodes["tissue"]["shape"])

    def verify(self) -> Iterator[str]:
        """Check every checksum and decode every patch.

        Yields:
            One sentence a problem, naming scale and patch; nothing at all for a sound store.
        """
        for name, node in self._nodes.items():
            yield from problems_of(functools.partial(check_node, self.path / name, node))
        yield from problems_of(self.thumbnail)
        yield from problems_of(self.tissue)
        for number, scale in enumerate(self._scales):
            yield from problems_of(functools.partial(self.coords, number))
            yield from scale.problems(self._patch_size)

    def _scale(self, scale: int) -> "ScaleReader":
        if not 0 <= scale < len(self._scales):
            raise IndexError(
                f"{self.path} has scales 0 to {len(self._scales) - 1}, not {scale}; see its `scales`"
            )
        return self._scales[scale]
