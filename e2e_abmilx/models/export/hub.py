"""Exported models on the Hugging Face hub: push a folder, fetch a folder."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined] # public, but not in its __all__

from e2e_abmilx import __version__
from e2e_abmilx.errors import InputError

_MODEL_FILES = (".safetensors", ".onnx", ".json")
#: Types of the files that are pushed and fetched; a pickle is never among them.
FILE_TYPES = (*_MODEL_FILES, ".md")


class HubError(InputError):
    """A repository of the hub cannot be read or written."""


def push_folder(folder: Path, repo: str, *, private: bool = True) -> str:
    """Upload an exported folder as one commit, and return the repository's URL.

    The repository is made if it does not exist. Only files of ``FILE_TYPES`` are uploaded. Weights, graphs and JSON
    files of an earlier model that the folder does not have are removed from the repository in the same commit, because
    they would not fit the new ones; its history keeps them.

    Args:
        folder: An exported folder.
        repo: ``ORG/NAME`` of the repository.
        private: Keep it private, which is the default because weights can give away training data. If the repository
            exists and is public, nothing is uploaded unless this is False. A private one stays private in any case.

    Raises:
        HubError: The name is not valid, the hub cannot be reached, there is no token that may write, or the repository
            is public and ``private`` is True.
        InputError: The folder holds no weights.
    """
    _check_name(repo)
    if not any(folder.glob("*.safetensors")):
        raise InputError(f"{folder} holds no *.safetensors; only an exported model can be pushed: export it first")
    with _explained(repo, "pushed"):
        hub = _hub(token=True)
        url = hub.create_repo(repo, private=private, exist_ok=True)
        if private and not hub.model_info(repo).private:
            raise HubError(
                f"{repo} exists and is public, and private is True; pass private=False to publish this model, make the"
                " repository private in its settings, or name another one"
            )
        new = {path.name: path for path in sorted(folder.iterdir()) if path.name.endswith(FILE_TYPES)}
        old = [name for name in hub.list_repo_files(repo) if name.endswith(_MODEL_FILES) and "/" not in name]
        changes: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationAdd(name, path) for name, path in new.items()),
            *(CommitOperationDelete(name) for name in old if name not in new),
        ]
        hub.create_commit(repo, changes, commit_message=f"Model exported by e2e-abmilx {__version__}")
    return str(url)


def fetch_folder(address: str) -> Path:
    """Download an exported folder into the hub's cache, and return its path there.

    Only files of ``FILE_TYPES`` are downloaded, and nothing is executed or unpickled. Files that are in the cache are
    not downloaded again; without a network, the newest cached copy of the revision is returned.

    Args:
        address: ``hf://ORG/NAME``, or ``hf://ORG/NAME@REVISION`` with a branch, a tag or a commit.

    Raises:
        HubError: The address is not valid, the repository or revision does not exist or may not be read, the hub cannot
            be reached, or the repository holds no exported model.
    """
    found = re.fullmatch(r"hf://([^@]*)(?:@(.+))?", address)
    if found is None:
        raise HubError(f"{address!r} is no address of a model; it has the form hf://ORG/NAME or hf://ORG/NAME@REVISION")
    repo, revision = found.groups()
    _check_name(repo)
    with _explained(address, "fetched"):
        patterns = [f"*{suffix}" for suffix in FILE_TYPES]
        folder = Path(_hub().snapshot_download(repo, revision=revision, allow_patterns=patterns))
    if not any(folder.glob("*.safetensors")):
        raise HubError(f"{address} holds no *.safetensors, so it is no exported model; check the name and the revision")
    return folder


def _hub(*, token: bool | None = None) -> HfApi:
    return HfApi(token=token, library_name="e2e-abmilx", library_version=__version__)


def _check_name(repo: str) -> None:
    try:
        validate_repo_id(repo)
        valid = repo.count("/") == 1
    except HFValidationError:
        valid = False
    if not valid:
        raise HubError(
            f"{repo!r} is no name of a repository; it has the form ORG/NAME, of letters, digits, '-', '_' and '.'"
        )


@contextmanager
def _explained(name: str, done: str) -> Iterator[None]:
    """Turn the errors of the hub's client, which come from several libraries, into one that says what to do."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise HubError(f"{name} cannot be {done}: {_explain(error)}") from error


def _explain(error: BaseException) -> str:
    """Return the reason and the cure."""
    if isinstance(error, LocalEntryNotFoundError | RuntimeError) and error.__cause__:
        return _explain(error.__cause__)  # it only says where in the client the cause was met
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
    login = "log in with `hf auth login` or set HF_TOKEN"
    if isinstance(error, LocalTokenNotFoundError):
        return f"there is no token, and writing needs one; {login}, with a token that may write"
    if isinstance(error, OfflineModeIsEnabled):
        return (
            "HF_HUB_OFFLINE is set, and the cache has no copy; unset it, or fetch the model on a machine with a network"
        )
    if isinstance(error, RevisionNotFoundError):
        return "the repository has no such revision; name a branch, a tag or a commit that it has"
    if isinstance(error, GatedRepoError):
        return f"its owners grant access on request; ask for it on the repository's page, then {login}"
    if isinstance(error, RepositoryNotFoundError):
        return f"{constants.ENDPOINT} shows no such repository; check the name and, if it is private, {login}"
    if status == 401:
        return f"{constants.ENDPOINT} does not accept the token; {login}, with a valid token"
    if status == 403:
        return "the token has no right to do that; use a token that may write, of a member of the organisation"
    if isinstance(error, OSError) and not status and not isinstance(error, LocalEntryNotFoundError):
        return (
            f"a file cannot be read or written ({_in_words(error)}); check the disk and the cache, which HF_HOME sets"
        )
    if status or isinstance(error, ValueError):
        return f"{constants.ENDPOINT} refuses it ({_in_words(error)}); correct that, or try again later"
    return (
        f"{constants.ENDPOINT} cannot be reached ({type(error).__name__}: {_in_words(error)}), and the cache has no"
        " copy; check the network and HF_ENDPOINT, or pass a folder instead"
    )


def _in_words(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
