"""Fixtures for all tests."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from local_bucket import BUCKET, FaultProxy, local_bucket, make_bucket

from e2e_abmilx.cache import cache_slides
from e2e_abmilx.store import files, objects
from e2e_abmilx.synthetic import write_cohort

if "PYTEST_XDIST_WORKER" in os.environ:  # else each of the processes, and those that they start, would use all cores
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("busy machines", deadline=None)
settings.load_profile("busy machines")


@pytest.fixture(autouse=True)
def clean_log() -> Iterator[None]:
    """Undo after each test what a command sets up for the log, which would hide messages from the next test's caplog."""
    log = logging.getLogger("e2e_abmilx")
    handlers, level, propagate = list(log.handlers), log.level, log.propagate
    yield
    log.handlers[:], log.propagate = handlers, propagate
    log.setLevel(level)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real slides and reference data next to the checkout; without it, tests that need it are skipped."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the reference material (../shared) is not here")
    return folder


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 small synthetic slides with ``labels.csv``."""
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, slides=24, side=512)
    return folder


@pytest.fixture(scope="session")
def stores(cohort: Path) -> Path:
    """The folder of the patch stores of ``cohort``: 64 px patches at 0.5 and 1.0 µm/px."""
    cache_slides(cohort / "slides", cohort / "stores", mpp=(0.5, 1.0), patch_size=64, workers=1)
    return cohort / "stores"


@pytest.fixture(scope="session")
def one_bucket() -> Iterator[FaultProxy]:
    """The local bucket of all tests; take ``bucket``."""
    with local_bucket() as proxy:
        yield proxy


@pytest.fixture
def bucket(one_bucket: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """An empty bucket, ``s3://cohorts``, behind its proxy, and readers that give up soon."""
    make_bucket(one_bucket, BUCKET)
    one_bucket.fault, one_bucket.latency_s = lambda method, path: None, 0.0
    for name, value in {"BACKOFF_S": 0.01, "RETRIES": 3, "READ_TIMEOUT_S": 0.5, "GIVE_UP_S": 10.0}.items():
        monkeypatch.setattr(objects, name, value)
    objects._open_client.cache_clear()
    files.forget_objects()
    yield one_bucket
    objects._open_client.cache_clear()
