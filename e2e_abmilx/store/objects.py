"""Reads from object storage through obstore: clients and retries.

obstore repeats requests that end with status 429 or 5xx, time out or lose their connection, also in the middle of a
body, which it continues where it broke off. It accepts a body that is shorter than asked for; :func:`fetch` asks again.
"""

import functools
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

from e2e_abmilx.store.format import StoreError
from e2e_abmilx.store.locations import ObjectUrl, without_secrets
from e2e_abmilx.store.object_errors import PUSH_AGAIN, AccessError, describe

T = TypeVar("T")

CONNECTIONS = 32  # requests at once of a process
RETRIES = 12
SHORT_RETRIES = 4  # of a body that is too short, which is rarely a passing fault
BACKOFF_S = 0.1  # before the first repetition; doubles each time, up to 5 s
READ_TIMEOUT_S = 15.0  # without a byte
GIVE_UP_S = 120.0  # after which no request is repeated

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")
_STATIC = ("AWS_ACCESS_KEY_ID", "AWS_SKIP_SIGNATURE", "AWS_WEB_IDENTITY_TOKEN_FILE")
_user: int | None = None  # the process that opened the first client


class Range(NamedTuple):
    """Bytes ``start`` to ``stop`` of the object ``name``."""

    name: str
    start: int
    stop: int


def fetch(folder: ObjectUrl, ranges: Sequence[Range]) -> list[memoryview]:
    """Return the bytes of all ranges, which are asked for at the same time, at most ``CONNECTIONS`` of them.

    Raises:
        StoreError: A range cannot be read, and why.
    """
    if len(ranges) == 1:
        return [_fetch_one(folder, ranges[0])]
    return list(_threads().map(functools.partial(_fetch_one, folder), ranges))


def get(folder: ObjectUrl, name: str) -> bytes | None:
    """Return a whole object; None if there is none."""
    found = get_version(folder, name)
    return None if found is None else found[0]


def get_tail(folder: ObjectUrl, name: str, num_bytes: int) -> tuple[bytes, int]:
    """Return the last bytes of an object, and its size.

    Raises:
        StoreError: It cannot be read, or it is shorter.
    """

    def read() -> tuple[bytes, int]:
        obstore = _obstore(folder)
        result = obstore.get(client(folder), name, options={"range": {"suffix": num_bytes}})
        return _whole(bytes(result.bytes()), num_bytes), result.meta["size"]

    found = _repeat(read, folder / name, missing=None)
    if found is None:
        raise StoreError(f"{folder / name} is missing; {PUSH_AGAIN}")
    return found


def list_folders(folder: ObjectUrl) -> list[str]:
    """Return the names of the folders that lie directly in a folder, sorted."""

    def read() -> list[str]:
        obstore = _obstore(folder)
        found = obstore.list_with_delimiter(client(folder), None)["common_prefixes"]
        return sorted(prefix.rstrip("/").rpartition("/")[2] for prefix in found)

    return _repeat(read, folder, missing=[])


def num_bytes(folder: ObjectUrl, name: str) -> int:
    """Return the bytes of all objects of a folder that lies in another."""

    def read() -> int:
        return sum(one["size"] for page in _obstore(folder).list(client(folder), prefix=name) for one in page)

    return _repeat(read, folder / name, missing=0)


def put(folder: ObjectUrl, name: str, data: Any) -> None:  # noqa: ANN401 - bytes, or an iterable of bytes
    """Write an object, which is visible only as a whole.

    Raises:
        StoreError: It cannot be written, and why.
    """
    obstore = _obstore(folder)
    try:
        obstore.put(client(folder), name, data)
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001 - obstore's errors are of many kinds
        raise _explain(error, folder / name, "written") from None


def update(folder: ObjectUrl, name: str, change: Callable[[bytes | None], bytes]) -> None:
    """Replace an object by what ``change`` makes of its content, None if there is none; no other's change is lost.

    Of two processes that do so at once, the later one does it again, where the storage can tell (S3, GCS, Azure).
    """
    obstore = _obstore(folder)
    raced = (obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError)
    while True:
        before = get_version(folder, name)
        data = change(None if before is None else before[0])
        mode: Any = "create" if before is None else before[1]
        try:
            obstore.put(client(folder), name, data, mode=mode)
        except raced:
            continue
        except obstore.exceptions.NotSupportedError:
            put(folder, name, data)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - obstore's errors are of many kinds
            raise _explain(error, folder / name, "written") from None
        return


def get_version(folder: ObjectUrl, name: str) -> tuple[bytes, dict[str, str]] | None:
    """Return a whole object and what tells its version: S3 and Azure compare ``e_tag``, GCS ``version``; None if missing."""

    def read() -> tuple[bytes, dict[str, str]]:
        obstore = _obstore(folder)
        result = obstore.get(client(folder), name)
        version = {key: result.meta[key] for key in ("e_tag", "version") if result.meta.get(key)}
        return _whole(bytes(result.bytes()), result.meta["size"]), version

    return _repeat(read, folder / name, missing=None)


def client(folder: ObjectUrl) -> Any:  # noqa: ANN401 - obstore is an extra
    """Return the client of a folder, opened in this process.

    Raises:
        StoreError: obstore is missing or refuses the URL; or this process was forked from one that has read objects,
            whose threads the fork did not copy, so that every request would wait for ever.
    """
    global _user
    if _user not in (None, os.getpid()):
        raise StoreError(
            f"{folder} cannot be read in this process: it was forked from one that had read from object storage, and"
            " network clients do not survive a fork; start processes with multiprocessing's method 'forkserver' or 'spawn'"
        )
    _user = os.getpid()
    return _open_client(folder)


@functools.lru_cache(maxsize=16)
def _open_client(folder: ObjectUrl) -> Any:  # noqa: ANN401
    _refuse_endpoint()
    from_url = _obstore(folder).store.from_url
    try:
        if folder.startswith("s3://") and not any(os.environ.get(name) for name in _STATIC):
            _find_credentials(folder, from_url(folder, **_options(folder, retries=1)))
        return from_url(folder, **_options(folder, RETRIES))
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001 - obstore's errors are of many kinds
        raise _explain(error, folder, "opened") from None


def _refuse_endpoint() -> None:
    """Refuse an endpoint that is no URL, which would end obstore without an exception that can be caught."""
    for name in _ENDPOINTS:
        found = os.environ.get(name)
        if found is not None and not re.fullmatch(r"https?://[^/\s]+.*", found):
            raise StoreError(
                f"{name} is {without_secrets(found)!r}; it must be a URL, such as https://minio.lab:9000: correct or unset it"
            )


def _obstore(folder: ObjectUrl) -> Any:  # noqa: ANN401
    """Return the package obstore, which is an extra."""
    try:
        import obstore.exceptions
        import obstore.store
    except ImportError as error:
        raise StoreError(f"{folder} is read through obstore; `pip install e2e-abmilx[cloud]`") from error
    return obstore


def _options(folder: ObjectUrl, retries: int) -> dict[str, Any]:
    backoff = {"init_backoff": timedelta(seconds=BACKOFF_S), "max_backoff": timedelta(seconds=5)}
    return {
        "client_options": {
            "allow_http": folder.startswith("http://") or _allows_http(),
            "read_timeout": timedelta(seconds=READ_TIMEOUT_S),
            "timeout": timedelta(seconds=GIVE_UP_S),
            "pool_max_idle_per_host": str(CONNECTIONS),
        },
        "retry_config": {"max_retries": retries, "backoff": backoff, "retry_timeout": timedelta(seconds=GIVE_UP_S)},
    }


def _find_credentials(folder: ObjectUrl, store: Any) -> None:  # noqa: ANN401
    """Refuse at once to look for credentials at a machine that gives none, which every request would do many times."""
    obstore = _obstore(folder)
    try:
        obstore.head(store, "zarr.json")
    except Exception as error:  # noqa: BLE001 - whatever else is wrong, the first request will tell
        if isinstance(found := _explain(error, folder, "read"), AccessError):
            raise found from None


def _explain(error: Exception, where: ObjectUrl, done: str) -> StoreError:
    """Return an error as a sentence; after one of credentials, open clients anew, with those of the environment then."""
    found = describe(error, where, done)
    if isinstance(found, AccessError):
        _open_client.cache_clear()
    return found


def _fetch_one(folder: ObjectUrl, wanted: Range) -> memoryview:
    def read() -> memoryview:
        obstore = _obstore(folder)
        data = obstore.get_range(client(folder), wanted.name, start=wanted.start, end=wanted.stop)
        return _whole(memoryview(data), wanted.stop - wanted.start)

    found = _repeat(read, folder / wanted.name, missing=None)
    if found is None:
        raise StoreError(f"{folder / wanted.name} is missing; {PUSH_AGAIN}")
    return found


class _ShortBody(Exception):
    """A body is shorter than asked for."""


def _whole(data: T, num_bytes: int) -> T:
    if len(data) != num_bytes:  # type: ignore[arg-type] # bytes or a view of them
        raise _ShortBody(f"{len(data)} of {num_bytes} bytes")  # type: ignore[arg-type]
    return data


def _repeat(read: Callable[[], T], where: ObjectUrl, *, missing: Any) -> T | Any:  # noqa: ANN401
    """Return what a request returns, or ``missing`` if there is no such object; ask again while a body is short."""
    for attempt in range(SHORT_RETRIES + 1):
        try:
            return read()
        except FileNotFoundError:
            return missing
        except _ShortBody as error:
            short = str(error)
            time.sleep(BACKOFF_S * 2**attempt if attempt < SHORT_RETRIES else 0)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - obstore's errors are of many kinds
            raise _explain(error, where, "read") from None
    raise StoreError(
        f"{where} cannot be read: the server sends only {short}, {SHORT_RETRIES + 1} times; check the object, or {PUSH_AGAIN}"
    )


_pools: dict[int, ThreadPoolExecutor] = {}
_pools_lock = threading.Lock()


def _threads() -> ThreadPoolExecutor:
    """Return the threads of this process that wait for requests."""
    with _pools_lock:
        if os.getpid() not in _pools:
            _pools.clear()
            _pools[os.getpid()] = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="objects")
        return _pools[os.getpid()]


def _allows_http() -> bool:
    names = ("AWS_ALLOW_HTTP", "AZURE_ALLOW_HTTP", "GOOGLE_ALLOW_HTTP")
    return any(os.environ.get(name, "").lower() in ("1", "true") for name in names)
