"""The patch store: one slide's patches on disk or in object storage, as a zarr v3 group that is read at random.

* ``codec``: the JPEG codec of patches, for zarr-python and for this package
* ``format``: what reader and writer share: metadata, checksums, arrays
* ``locations``: where a store lies: a folder or a URL
* ``scale_reader``: random reads from the shard files of one scale
* ``summary``: what a reader needs besides the patches, in one small object
* ``object_errors``: errors of object storage, with a cure and without credentials
* ``objects``: requests to object storage, repeated where they fail
* ``disk_cache``: a bounded folder on a local disk that keeps what was read from a bucket
* ``object_scale``: random reads from one scale in object storage
* ``files``: the files of a store, local or in object storage
* ``reader``: ``PatchStore``, one slide's patches
* ``facts``: what a cohort needs to know of a store, and the bytes that hold that of many
* ``cohort_index``: the facts of the stores of a folder, of which only new and changed ones are opened
* ``scale_writer``: the shard files of one scale, written patch by patch
* ``writer``: ``StoreWriter`` and ``write_store``, which make a store

``FORMAT.md`` in this folder describes every byte.
"""

from e2e_abmilx.store.codec import JpegCodec
from e2e_abmilx.store.cohort_index import CohortIndex
from e2e_abmilx.store.facts import StoreFacts
from e2e_abmilx.store.format import StoreError
from e2e_abmilx.store.reader import PatchStore
from e2e_abmilx.store.writer import StoreWriter, write_store

__all__ = ["CohortIndex", "JpegCodec", "PatchStore", "StoreError", "StoreFacts", "StoreWriter", "write_store"]
