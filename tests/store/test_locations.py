"""Locations: which are local, which are URLs, and that no secret is accepted or repeated."""

import pickle
from pathlib import Path

import pytest

from e2e_abmilx.store import StoreError
from e2e_abmilx.store.locations import ObjectUrl, as_location, as_writable, store_path, without_secrets


@pytest.mark.parametrize("where", ["caches/a", "/caches/a b", "C:/a", "a:b", Path("x/y")])
def test_a_folder_is_a_path(where: str | Path) -> None:
    assert as_location(where) == Path(where)


@pytest.mark.parametrize(
    "url", ["s3://b/x", "gs://b/x y", "az://account/container/x", "https://host/x", "http://h:80/x"]
)
def test_a_url_is_a_string_with_parts(url: str) -> None:
    found = as_location(url + "/")
    assert isinstance(found, ObjectUrl)
    assert found == url == str(found)
    assert (found.parent / found.name) == url
    assert store_path(found, "a slide") == f"{url}/a slide.zarr"
    assert as_location(found) is found
    assert type(pickle.loads(pickle.dumps(found))) is ObjectUrl


def test_a_url_survives_as_a_path() -> None:
    """Options that are typed as paths turn ``s3://b/x`` into ``s3:/b/x``."""
    assert as_location(Path("s3://bucket/cohort")) == "s3://bucket/cohort"
    assert as_location(Path("file:///tmp/x")) == Path("/tmp/x")


@pytest.mark.parametrize("slide", ["a#1", "what?", "100%", "b%41", "c d"])
def test_a_store_may_be_named_after_any_slide(slide: str) -> None:
    found = as_location(store_path(as_location("s3://b/x"), slide) + "/")
    assert found == as_location(str(found)) == f"s3://b/x/{slide}.zarr"
    assert isinstance(found, ObjectUrl)


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    assert as_location((tmp_path / "a b").as_uri()) == tmp_path / "a b"


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:hunter2@bucket/x",
        "https://hunter2@host/x",
        "https://host/x?sig=hunter2",
        "az://a/c/x#hunter2",
        "s3://b/x?hunter2/a.zarr",
    ],
)
def test_a_url_with_a_secret_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(StoreError, match="leave it out") as caught:
        as_location(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/x", "not supported"),
        ("S3://b/x", "S3:// is not supported; give a folder or a URL with s3,"),
        (Path("s3a://b/x"), "s3a:// is not supported"),
        ("s3://", "names no bucket"),
        ("s3//b/x", "a URL begins with s3://, and this one with s3//"),
        ("gs:b/x", "a URL begins with gs://, and this one with gs:;"),
        ("s3://b//x", "'//', which clients of buckets read as another place"),
        ("s3://b/x/../y", r"'/\.\.', which"),
        ("s3://b/a%20b", "has '%', which"),
        ("~/caches", "only a shell knows what ~ is"),
    ],
)
def test_other_urls_are_refused(url: str | Path, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        as_location(url)


def test_secrets_are_taken_out_of_a_text() -> None:
    text = "cache='s3:/me:hunter2@b/x', 'https://h/x?sig=hunter2', s3://b/x, a@b, what?"
    assert without_secrets(text) == "cache='s3:/***b/x', 'https://h/x?***', s3://b/x, a@b, what?"


@pytest.mark.parametrize("url", ["http://host/x", "https://host/x"])
def test_web_servers_are_read_only(url: str) -> None:
    with pytest.raises(StoreError, match=f"{url} can only be read; write into a folder, or into a bucket: s3://"):
        as_writable(url)
    for writable in ("folder", "s3://b/x", "gs://b/x", "az://a/b/x"):
        assert as_writable(writable) == as_location(writable)
