"""One store to make: claimed by one process at a time, checked, and recorded in the manifest."""

import hashlib
import os
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e_abmilx.cache.crosscheck import Check
from e2e_abmilx.cache.manifest import CachedSlide, read_manifest, update_manifest
from e2e_abmilx.errors import InputError
from e2e_abmilx.io.locks import hold
from e2e_abmilx.slides.slide_files import SlideFile
from e2e_abmilx.store import PatchStore, StoreFacts, objects
from e2e_abmilx.store.locations import ObjectUrl
from e2e_abmilx.store.writer import leftovers


class CacheError(InputError):
    """A cache cannot be built or used."""


CLAIMS = ".claims"
OVERVIEWS = "overviews"


@dataclass(frozen=True)
class StoreJob(ABC):
    """One store to make; it can be sent to a worker process.

    Attributes:
        slide: The slide, or the file or folder that holds its patches.
        out: Folder of the cache.
    """

    slide: SlideFile
    out: Path

    @property
    def store(self) -> Path:
        """The store's folder."""
        return self.out / f"{self.slide.name}.zarr"

    @property
    def claim(self) -> Path:
        """The lock file of the process that makes the store."""
        return self.out / CLAIMS / f"{self.slide.name}.lock"

    @property
    def picture(self) -> Path:
        """The slide's overview."""
        return self.out / OVERVIEWS / f"{self.slide.name}.png"

    @abstractmethod
    def origin(self) -> dict[str, object]:
        """Return the source and the settings of the store, as attributes; a store that exists must have the same."""

    def check(self, store: PatchStore) -> Check:
        """Compare some patches of the finished store with a second reader; imports without a slide have none."""
        return Check()

    @abstractmethod
    def write(self) -> None:
        """Write the store; raise an InputError if the slide cannot be used."""


def make_store(job: StoreJob, *, wait: bool = True) -> CachedSlide:
    """Make one store, in a worker process, and record it; return its row of the manifest.

    If another process makes it, ``wait`` for that one, or return a row with the status ``"claimed"``.
    """
    with hold(job.claim, wait=wait) as ours:
        if not ours:
            return CachedSlide(job.slide.name, "claimed")
        started = time.perf_counter()
        if job.store.exists():
            return describe(job, read_manifest(job.out), PatchStore(job.store).attributes)
        for partial in leftovers(job.store):
            shutil.rmtree(partial)
        try:
            job.write()
            row = describe(job, {}, PatchStore(job.store).attributes)._replace(
                seconds=round(time.perf_counter() - started, 2)
            )
        except InputError as error:
            row = CachedSlide(job.slide.name, "failed", str(error))
        except Exception as error:  # noqa: BLE001 - whatever goes wrong with one slide must not stop the others
            row = CachedSlide(job.slide.name, "failed", f"{job.slide.path}: {type(error).__name__}: {error}")
        update_manifest(job.out, [row])
        return row


def describe(job: StoreJob, earlier: Mapping[str, CachedSlide], attributes: Mapping[str, Any]) -> CachedSlide:
    """Return the row of a finished store of these attributes: the earlier row, which has the time taken, or a new one.

    A store without a row has not been checked yet. If the two readers disagree, the store is removed. Either row says where
    the slide is now.
    """
    if row := _earlier_row(job, earlier, attributes):
        return row
    store = PatchStore(job.store)
    check = job.check(store)
    row = CachedSlide(job.slide.name, "failed" if check.reason else "done", **check._asdict())
    if check.reason:
        remove(job)
        return row
    size = sum(file.stat().st_size for file in job.store.rglob("*") if file.is_file())
    return _with_facts(row, job, StoreFacts.of(store), size)


def describe_pushed(
    job: StoreJob, folder: ObjectUrl, earlier: Mapping[str, CachedSlide], facts: StoreFacts
) -> CachedSlide:
    """Return the row of a store in a bucket: the earlier row, or a new one; it was checked before it was sent."""
    if row := _earlier_row(job, earlier, facts.attributes):
        return row
    row = CachedSlide(job.slide.name, "done", checked_by="not known: the run that checked it was stopped")
    return _with_facts(row, job, facts, objects.num_bytes(folder, f"{job.slide.name}.zarr"))


def _earlier_row(
    job: StoreJob, earlier: Mapping[str, CachedSlide], attributes: Mapping[str, Any]
) -> CachedSlide | None:
    row = earlier.get(job.slide.name)
    if row is None or row.status != "done":
        return None
    return row._replace(path=_slide_path(job, attributes) or row.path)


def _with_facts(row: CachedSlide, job: StoreJob, facts: StoreFacts, num_bytes: int) -> CachedSlide:
    attributes = facts.attributes
    return row._replace(
        mpp=attributes["slide_mpp"],
        mpp_source=attributes["slide_mpp_source"],
        patches=";".join(map(str, facts.counts)),
        unreadable=sum(attributes["grid_patches"]) - sum(facts.counts),
        bytes=num_bytes,
        path=_slide_path(job, attributes),
    )


def _slide_path(job: StoreJob, attributes: Mapping[str, Any]) -> str:
    """Return the absolute path of the slide that a store was cut from; empty if there is none, or it was moved away."""
    path = str(job.slide.path.absolute())
    if "slide_file" not in attributes or not job.slide.path.exists():
        return ""
    return path if path == path.encode(errors="ignore").decode() else ""  # the manifest is UTF-8, and paths may not be


def remove(job: StoreJob) -> None:
    """Remove a store, if it exists, and its picture; it is renamed first, so that no process sees a part of it."""
    if not job.store.exists():
        return
    refused = job.store.with_name(f".{job.store.name}.refused")
    shutil.rmtree(refused, ignore_errors=True)
    job.store.rename(refused)
    shutil.rmtree(refused)
    job.picture.unlink(missing_ok=True)


def fingerprint(path: Path) -> str:
    """Return a digest of a file's size and of its first and last 64 KiB."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(str(size).encode())
        digest.update(file.read(65536))
        file.seek(max(0, size - 65536))
        digest.update(file.read(65536))
    return digest.hexdigest()[:32]
