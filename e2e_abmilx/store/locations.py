"""Locations of stores and caches: local folders are a ``Path``, everything else an ``ObjectUrl``."""

import re
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from e2e_abmilx.store.format import StoreError

_BUCKETS = ("s3", "gs", "az")
_SCHEMES = (*_BUCKETS, "http", "https")
_ONE_SLASH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")  # what a Path makes of a URL; one letter is a drive
_SLIP = re.compile(r"(s3|gs|az)(:(?!//)|//)", re.IGNORECASE)
_UNCLEAR = re.compile(r"%|/+/(?!$)(?=.*[^/])|/\.\.?(?=/|$)")  # obstore reads these as other characters or places


class ObjectUrl(str):
    """The URL of a cache or a store in object storage; like a ``Path`` it has a ``name``, a ``parent`` and ``/``."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.rpartition("/")[2]

    @property
    def parent(self) -> Self:
        """The URL without its last part."""
        return type(self)(self.rpartition("/")[0])

    def absolute(self) -> Self:
        """Return the URL itself."""
        return self

    def __truediv__(self, name: str) -> Self:
        return type(self)(f"{self}/{name}")


#: Where a cache or a store lies.
Location = Path | ObjectUrl


def as_location(where: str | Path) -> Location:
    """Return a location as a ``Path``, also for ``file://``, or as an ``ObjectUrl``.

    ``s3:/bucket``, which a ``Path`` makes of ``s3://bucket``, is read as the URL that it was.

    Raises:
        StoreError: The URL is of an unknown kind, is mistyped, or holds a password, a query or a fragment.
    """
    if isinstance(where, ObjectUrl):
        return where
    text = _ONE_SLASH.sub(r"\1://", str(where), count=1)
    _refuse_slips(text)
    scheme, separator, rest = text.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return Path(where)
    if scheme == "file":
        return Path(unquote(rest if rest.startswith("/") else f"/{rest}"))
    parent, _, name = rest.rstrip("/").rpartition("/")
    if scheme in _BUCKETS and parent and name.endswith(".zarr"):  # named after a slide, which may hold ? # and %
        return as_location(f"{scheme}://{parent}") / name
    if scheme not in _SCHEMES:
        raise StoreError(f"{scheme}:// is not supported; give a folder or a URL with {', '.join(_SCHEMES)} or file")
    _refuse_secrets(text)
    if not urlsplit(text).netloc:
        raise StoreError(f"{text} names no bucket; write {scheme}://bucket/cohort")
    if scheme in _BUCKETS and (unclear := _UNCLEAR.search(rest)):
        raise StoreError(
            f"{text} has {unclear[0]!r}, which clients of buckets read as another place; name each folder as it is, with one /"
            " between folders"
        )
    return ObjectUrl(text.rstrip("/"))


def store_path(cache: Location, slide: str) -> Location:
    """Return the location of a slide's store in a cache."""
    return cache / f"{slide}.zarr"


def as_writable(where: str | Path) -> Location:
    """Return the location of a cache that is written; otherwise as :func:`as_location`.

    Raises:
        StoreError: It is the URL of a web server as well.
    """
    location = as_location(where)
    if isinstance(location, ObjectUrl) and location.startswith(("http://", "https://")):
        raise StoreError(f"{location} can only be read; write into a folder, or into a bucket: s3://, gs:// or az://")
    return location


def without_secrets(text: str) -> str:
    """Return a text without what URLs in it hold before ``@`` or after ``?``, which may be passwords and signatures."""
    return re.sub(
        rf"((?:{'|'.join(_SCHEMES)}):/+)[^/\s'\"]*@|((?:{'|'.join(_SCHEMES)}):/+[^?\s'\"]*\?)[^\s'\"]+",
        r"\1\2***",
        text,
    )


def _refuse_slips(text: str) -> None:
    """Refuse a mistyped URL, and ``~``, either of which would become a folder of that name."""
    if text.partition("/")[0] == "~":
        raise StoreError(f"{text} is no whole path: only a shell knows what ~ is; write the path of the folder itself")
    if slip := _SLIP.match(text):
        raise StoreError(
            f"a URL begins with {slip[1]}://, and this one with {slip[0]}; correct it, or write ./ before a folder"
        )


def _refuse_secrets(url: str) -> None:
    """Refuse a URL that may hold a password or a signature, without repeating it: it would be logged and saved."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise StoreError(
            f"a {parts.scheme}:// URL holds a user name or password, which would be logged and saved with the config;"
            " leave it out and set the usual environment variables, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if parts.query or parts.fragment:
        raise StoreError(
            f"the URL {url.partition('?')[0].partition('#')[0]} has a query or a fragment, which may be a signature and"
            " would be logged and saved with the config; leave it out and give credentials by environment variables"
        )
