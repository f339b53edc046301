"""Errors of object storage, as sentences with a cure and without credentials."""

import re

from e2e_abmilx.store.format import ReachError, StoreError
from e2e_abmilx.store.locations import ObjectUrl

_CREDENTIALS = re.compile(
    r"<Code>(Expired\w+|InvalidAccessKeyId|InvalidClientTokenId|InvalidToken|SignatureDoesNotMatch|TokenRefreshRequired"
    r"|RequestTimeTooSkewed)</Code>|/latest/(api/token|meta-data)|/computeMetadata/|/metadata/identity/"
    r"|Account must be specified|Missing (?:AccessKeyId|SecretAccessKey)"
)  # the paths are where a machine in the cloud is asked for credentials
_STATUS = re.compile(r"status code: (\d{3}(?: [A-Z][A-Za-z]+)*)")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_KIND = re.compile(r"kind: (Timeout|Interrupted|Connect)\b")

#: Where credentials come from, by the kind of the URL.
_VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, which `aws configure export-credentials --format"
    " env` prints (for a public bucket AWS_SKIP_SIGNATURE=true)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, the file that `gcloud auth application-default login` writes, or"
    " GOOGLE_SERVICE_ACCOUNT, that of a service account",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_SAS_KEY",
}

#: The cure of a damaged store; what is in the bucket already is not sent again.
PUSH_AGAIN = "delete this store in the bucket and push it again"


class AccessError(ReachError):
    """Credentials are missing, have expired or lack a permission."""


def describe(error: Exception, where: ObjectUrl, done: str) -> StoreError:
    """Return an error of obstore with a cure: a ReachError, unless the object itself is too short.

    obstore's own text is not repeated, because it may hold signed URLs; only status, error code and kind are.
    """
    text, kind = str(error), where.partition("://")[0]
    kinds = {"Timeout": "it timed out", "Interrupted": "the connection was cut", "Connect": "nothing answers"}
    facts = [match[1] for match in (_STATUS.search(text), _CODE.search(text)) if match]
    facts += [kinds[match[1]] for match in [_KIND.search(text)] if match and not facts]
    fact = ", ".join(facts) or type(error).__name__
    if type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError") or _CREDENTIALS.search(text):
        variables = _VARIABLES.get(kind)
        cure = f"renew them and give them by {variables}" if variables else "a URL with http is read without any"
        return AccessError(
            f"{where} cannot be {done}: credentials are missing, expired or lack the permission ({fact}); {cure}, then run"
            " again"
        )
    if fact.startswith("416"):
        return StoreError(f"{where} cannot be {done} ({fact}): it is shorter than it should be; {PUSH_AGAIN}")
    endpoint = ", the endpoint (AWS_ENDPOINT_URL, and AWS_ALLOW_HTTP=true if it is not https)" if kind == "s3" else ""
    return ReachError(f"{where} cannot be {done} ({fact}); check the URL{endpoint} and the connection, then run again")
