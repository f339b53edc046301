"""Errors of object storage name the place, the cause and the cure, and repeat no secret."""

import pytest

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
    from e2e_abmilx.store import objects

    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(
        AccessError, match=r"az://mine/cohort cannot be opened: credentials are missing.*AZURE_STORAGE_ACC"
    ):
        objects.get(ObjectUrl("az://mine/cohort"), "stores.index")


def test_other_errors_say_what_to_check() -> None:
    error = Exception("Error after 3 retries: kind: Connect, https://x?sig=hunter2")
    assert str(describe(error, ObjectUrl("s3://b/x"), "written")) == (
        "s3://b/x cannot be written (nothing answers); check the URL, the endpoint (AWS_ENDPOINT_URL, and"
        " AWS_ALLOW_HTTP=true if it is not https) and the connection, then run again"
    )
    assert str(describe(error, ObjectUrl("gs://b/x"), "read")) == (
        "gs://b/x cannot be read (nothing answers); check the URL and the connection, then run again"
    )
