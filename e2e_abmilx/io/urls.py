"""Refusal of URLs where a folder or file on a disk is meant, and of ``~``, before a folder named ``s3:`` or ``~`` is made."""

import re
from collections.abc import Iterable
from pathlib import Path

from e2e_abmilx.errors import InputError

# also what a Path makes of a URL; a single letter is a drive of Windows
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def is_url(text: str | Path) -> bool:
    """Return whether a text is a URL, or what a ``Path`` makes of one."""
    return _URL.match(str(text)) is not None


def refuse_url(option: str, value: str | Path | None) -> None:
    """Refuse a URL, and ``~``, in the value of an option that names a folder or file on a disk.

    Raises:
        InputError: It is one; its query, which may be a signature, is not repeated.
    """
    if str(value).partition("/")[0] == "~":
        raise InputError(f"{option} is {value}; only a shell knows what ~ is, so write the whole path")
    if value is not None and is_url(value):
        scheme, rest = str(value).split(":/", 1)
        raise InputError(
            f"{option} is {scheme}://{_without_secrets(rest)}; it must be on a disk of this machine: only caches of patches"
            " are read from buckets and written to them"
        )


def refuse_urls(settings: Iterable[tuple[str, object]]) -> None:
    """Refuse URLs among parsed options; those that may be URLs are typed ``str``, and are no ``Path`` here.

    Raises:
        InputError: An option that is a ``Path``, or has one in a list, is a URL.
    """
    for name, value in settings:
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, Path):
                refuse_url(name, one)


def _without_secrets(rest: str) -> str:
    return re.sub(r"^/?[^/]*@|[?#].*", "***", rest.lstrip("/"))
