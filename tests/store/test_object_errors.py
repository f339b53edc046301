"""Errors of object storage name the place, the cause and the cure, and repeat no secret."""

import pytest

from e2e_abmilx.store import StoreError, objects
from e2e_abmilx.store.locations import ObjectUrl
from e2e_abmilx.store.object_errors import AccessError, describe


@pytest.mark.parametrize(
    ("url", "cure"),
    [
        ("s3://b/x", "AWS_ACCESS_KEY_ID"),
        ("gs://b/x", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("az://b/x", "AZURE_STORAGE_ACCOUNT_KEY"),
        ("https://host/x", "a URL with http is read without any"),
    ],
)
def test_credentials_have_the_cure_of_their_kind(url: str, cure: str) -> None:
    error = Exception("status code: 403 Forbidden, body: <Code>ExpiredToken</Code> https://x?X-Amz-Signature=hunter2")
    found = describe(error, ObjectUrl(url), "read")
    assert isinstance(found, AccessError)
    assert str(found).startswith(
        f"{url} cannot be read: credentials are missing, expired or lack the permission (403 Forb"
    )
    assert cure in str(found)
    assert "hunter2" not in str(found)


def test_without_the_name_of_an_account_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(
        AccessError, match=r"az://mine/cohort cannot be opened: credentials are missing.*AZURE_STORAGE_ACC"
    ):
        objects.get(ObjectUrl("az://mine/cohort"), "stores.index")


@pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_half_of_the_credentials_are_none(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.delenv(missing)
    with pytest.raises(AccessError, match="s3://half/cohort cannot be opened: credentials are missing") as caught:
        objects.client(ObjectUrl("s3://half/cohort"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"])
@pytest.mark.parametrize("value", ["", "minio.lab:9000", "http://"])
def test_an_endpoint_that_is_no_url_is_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Obstore would panic, which is no Exception."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match=f"{name} is '{value}'; it must be a URL"):
        objects.get(ObjectUrl("s3://endless/cohort"), "stores.index")


def test_other_errors_say_what_to_check() -> None:
    error = Exception("Error after 3 retries: kind: Connect, https://x?sig=hunter2")
    assert str(describe(error, ObjectUrl("s3://b/x"), "written")) == (
        "s3://b/x cannot be written (nothing answers); check the URL, the endpoint (AWS_ENDPOINT_URL, and"
        " AWS_ALLOW_HTTP=true if it is not https) and the connection, then run again"
    )
    assert str(describe(error, ObjectUrl("gs://b/x"), "read")) == (
        "gs://b/x cannot be read (nothing answers); check the URL and the connection, then run again"
    )
