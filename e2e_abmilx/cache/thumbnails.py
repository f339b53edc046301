"""The hash of a stored slide's thumbnail, by which a copy of the slide is recognised."""

from collections.abc import Sequence

from e2e_abmilx.io.progress import track
from e2e_abmilx.slides.duplicates import thumbnail_hash
from e2e_abmilx.store import CohortIndex, PatchStore
from e2e_abmilx.store.locations import store_path

#: The attribute of a store that holds the hash.
HASH = "thumbnail_hash"


def read_thumbnail_hash(store: PatchStore) -> str | None:
    """Return the hash of a store's thumbnail; None if it has no thumbnail, or one that cannot be told from others.

    The hash is an attribute of the store; for a store made before there were hashes it is computed.
    """
    if HASH in store.attributes:
        found: str | None = store.attributes[HASH]
        return found
    thumbnail = store.thumbnail()
    return None if thumbnail is None else thumbnail_hash(thumbnail)


def read_thumbnail_hashes(stores: CohortIndex, slides: Sequence[str]) -> dict[str, str | None]:
    """Return the hash of the thumbnail of each slide of a cache, by the slide's name."""
    hashes = {}
    for slide in track(slides, "looking at thumbnails", "slides"):
        known = stores[slide].attributes
        hashes[slide] = (
            known[HASH] if HASH in known else read_thumbnail_hash(PatchStore(store_path(stores.folder, slide)))
        )
    return hashes
