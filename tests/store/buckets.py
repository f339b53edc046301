"""Stores in the local bucket, copied file by file, without a summary unless one is given."""

from pathlib import Path

from small_stores import files

from e2e_abmilx.store import objects
from e2e_abmilx.store.locations import ObjectUrl

PREFIX = ObjectUrl("s3://cohorts/a cohort")


def upload(path: Path, folder: ObjectUrl = PREFIX) -> ObjectUrl:
    """Copy the files of a store into a bucket; return its URL."""
    for name, content in files(path).items():
        objects.put(folder, f"{path.name}/{name}", content)
    return folder / path.name
