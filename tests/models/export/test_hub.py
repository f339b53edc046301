"""Exported folders on a stand-in of the hub, which speaks its HTTP interface."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import READ_TOKEN, WRITE_TOKEN, Hub, Repository, running_hub
from huggingface_hub import constants

from e2e_abmilx.errors import InputError
from e2e_abmilx.models.export.hub import fetch_folder, push_folder

CARD = "---\nlibrary_name: e2e-abmilx\n---\n\n# A model\n"


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A folder as export writes it, with files that must stay at home."""
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(os.urandom(300_000))
    (folder / "head.onnx").write_bytes(os.urandom(20_000))
    (folder / "contract.json").write_text(json.dumps({"classes": ["a", "b"]}))
    (folder / "README.md").write_text(CARD)
    (folder / "best.ckpt").write_bytes(pickle.dumps({"patients": ["0001"]}))
    (folder / ".hidden.json.partial").write_text("{}")
    return folder


PUBLIC_FILES = {"model.safetensors", "head.onnx", "contract.json", "README.md"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that this process uses with an empty cache and a token that may write.

    The package reads these settings from the environment when it is imported, which may have happened before.
    """
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    with running_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("/{repo_id}")
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "".join(template[1:]))
        yield hub


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_pushed_is_fetched(hub: Hub, exported: Path) -> None:
    assert push_folder(exported, "lab/brca") == f"{hub.url}/lab/brca"
    assert hub.repos["lab/brca"].private
    assert len(hub.repos["lab/brca"].commits) == 2  # the empty repository and one commit
    expected = {name: value for name, value in contents(exported).items() if name in PUBLIC_FILES}
    assert hub.repos["lab/brca"].commits[hub.repos["lab/brca"].head] == expected
    fetched = fetch_folder("hf://lab/brca")
    assert contents(fetched) == expected
    assert fetch_folder(f"hf://lab/brca@{hub.repos['lab/brca'].head}") == fetched


def test_weights_travel_by_lfs_and_are_downloaded_once(hub: Hub, exported: Path) -> None:
    push_folder(exported, "lab/brca")
    assert sum(path.startswith("/storage/") for _, path in hub.requests) == 2
    fetch_folder("hf://lab/brca")
    hub.requests.clear()
    fetch_folder("hf://lab/brca")
    assert not any("resolve" in path for _, path in hub.requests)


@pytest.mark.slow  # processes of their own
def test_settings_of_the_environment_are_used(hub: Hub, exported: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from e2e_abmilx.models.export.hub import fetch_folder, push_folder;"
        " push_folder(Path(sys.argv[1]), 'lab/one'); print(fetch_folder('hf://lab/one'))"
    )
    own = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": WRITE_TOKEN,
        "HF_HUB_DISABLE_XET": "1",
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | own
    done = subprocess.run(
        [sys.executable, "-c", code, exported], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    fetched = Path(done.stdout.splitlines()[-1])
    assert fetched.is_relative_to(tmp_path / "home")
    assert contents(fetched) == {name: value for name, value in contents(exported).items() if name in PUBLIC_FILES}


def test_a_pickle_in_a_repository_is_not_downloaded(hub: Hub) -> None:
    files = {
        "model.safetensors": b"w",
        "model.pt": b"p",
        "model.ckpt": b"p",
        "x.pkl": b"p",
        "x.bin": b"p",
        "x.py": b"p",
    }
    hub.repos["lab/brca"] = Repository(private=False, commits={"a" * 40: files})
    assert contents(fetch_folder("hf://lab/brca")) == {"model.safetensors": b"w"}
    fetched = [path.rpartition("/")[2] for _, path in hub.requests if "/resolve/" in path]
    assert set(fetched) == {"model.safetensors"}


def test_a_second_push_replaces_the_model_and_keeps_other_files(hub: Hub, exported: Path) -> None:
    push_folder(exported, "lab/brca")
    first = hub.repos["lab/brca"].head
    old = hub.repos["lab/brca"].commits[first]
    old |= {".gitattributes": b"*", "notes.txt": b"mine", "more/table.json": b"{}"}
    (exported / "model.safetensors").write_bytes(b"new weights")
    (exported / "head.onnx").unlink()  # as the new model has no graph, that of the old one would mislead
    push_folder(exported, "lab/brca")
    files = hub.repos["lab/brca"].commits[hub.repos["lab/brca"].head]
    assert set(files) == (PUBLIC_FILES - {"head.onnx"}) | {".gitattributes", "notes.txt", "more/table.json"}
    assert (fetch_folder("hf://lab/brca") / "model.safetensors").read_bytes() == b"new weights"
    assert (fetch_folder(f"hf://lab/brca@{first}") / "head.onnx").is_file()


def test_a_public_repository_is_not_filled_by_mistake(hub: Hub, exported: Path) -> None:
    hub.repos["lab/open"] = Repository(private=False)
    with pytest.raises(InputError, match="lab/open exists and is public, and private is True; pass private=False"):
        push_folder(exported, "lab/open")
    assert not any("commit" in path or "storage" in path for _, path in hub.requests)
    push_folder(exported, "lab/open", private=False)
    assert set(hub.repos["lab/open"].commits[hub.repos["lab/open"].head]) == PUBLIC_FILES


def test_a_model_can_be_published(hub: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push_folder(exported, "lab/open", private=False)
    assert not hub.repos["lab/open"].private
    monkeypatch.delenv("HF_TOKEN")
    assert set(contents(fetch_folder("hf://lab/open"))) == PUBLIC_FILES


@pytest.mark.parametrize("address", ["lab/brca", "hf:/lab/brca", "hf://lab/brca@", "http://lab/brca", ""])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(InputError, match="is no address of a model; it has the form hf://ORG/NAME"):
        fetch_folder(address)


@pytest.mark.parametrize("name", ["brca", "lab/brca/more", "lab/", "/brca", "lab/a b", "lab/a--b", "../brca", ""])
def test_other_names_are_refused(name: str, exported: Path) -> None:
    with pytest.raises(InputError, match="is no name of a repository; it has the form ORG/NAME"):
        push_folder(exported, name)
    with pytest.raises(InputError, match="is no name of a repository; it has the form ORG/NAME"):
        fetch_folder(f"hf://{name}")


def test_a_folder_without_weights_is_not_pushed(hub: Hub, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(InputError, match=r"holds no \*\.safetensors; only an exported model can be pushed"):
            push_folder(folder, "lab/brca")
    assert hub.requests == []


def test_a_repository_without_weights_is_no_model(hub: Hub) -> None:
    for files in ({}, {"model.bin": b""}, {"README.md": CARD.encode()}):
        hub.repos["lab/data"] = Repository(private=False, commits={os.urandom(20).hex(): files})
        with pytest.raises(InputError, match=r"hf://lab/data holds no \*\.safetensors, so it is no exported model"):
            fetch_folder("hf://lab/data")


def test_a_missing_token_is_named(hub: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match="lab/brca cannot be pushed: there is no token, and writing needs one; log in"):
        push_folder(exported, "lab/brca")
    assert hub.requests == []


def test_tokens_without_the_right_are_named(hub: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="others/brca cannot be pushed: the token has no right to do that"):
        push_folder(exported, "others/brca")
    monkeypatch.setenv("HF_TOKEN", READ_TOKEN)
    with pytest.raises(InputError, match="lab/brca cannot be pushed: the token has no right to do that"):
        push_folder(exported, "lab/brca")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(InputError, match=r"127\.0\.0\.1:.* does not accept the token; log in with `hf auth login`"):
        push_folder(exported, "lab/brca")
    assert hub.repos == {}


def test_repositories_that_cannot_be_read_are_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos["lab/private"] = Repository(private=True)
    hub.repos["lab/gated"] = Repository(private=False, gated=True)
    with pytest.raises(
        InputError, match=r"hf://lab/none cannot be fetched: .* shows no such repository; check the name"
    ):
        fetch_folder("hf://lab/none")
    with pytest.raises(InputError, match="hf://lab/private@v2 cannot be fetched: the repository has no such revision"):
        fetch_folder("hf://lab/private@v2")
    with pytest.raises(InputError, match="its owners grant access on request"):
        fetch_folder("hf://lab/gated")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match="shows no such repository; check the name and, if it is private, log in"):
        fetch_folder("hf://lab/private")


def test_without_a_network_the_cached_copy_is_used(hub: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push_folder(exported, "lab/brca")
    fetched = fetch_folder("hf://lab/brca")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    assert fetch_folder("hf://lab/brca") == fetched
    with pytest.raises(InputError, match=r"hf://lab/other cannot be fetched: http://127.0.0.1:9 cannot be reached"):
        fetch_folder("hf://lab/other")
    with pytest.raises(InputError, match=r"lab/brca cannot be pushed: http://127.0.0.1:9 cannot be reached"):
        push_folder(exported, "lab/brca")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        fetch_folder("hf://lab/other")
