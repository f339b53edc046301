"""One slide's patches on disk: a zarr v3 group that zarr-python opens, and a far faster reader of it."""

from e2e_abmilx.store.codec import JpegCodec
from e2e_abmilx.store.format import StoreError
from e2e_abmilx.store.reader import PatchStore
from e2e_abmilx.store.writer import StoreWriter, write_store

__all__ = ["JpegCodec", "PatchStore", "StoreError", "StoreWriter", "write_store"]
