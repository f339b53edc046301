"""A model as a folder of plain files: weights as safetensors, settings and input contract as JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from e2e_abmilx.errors import InputError
from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.tasks import BagTask
from e2e_abmilx.tasks.checkpointed import without_first_weights

CONTRACT, SETTINGS, WEIGHTS, MEASURES = "contract.json", "model.json", "model.safetensors", "internal_test.json"
CARD = "README.md"

#: What rebuilds a task from its class path and settings; the only function that a folder can call.
_INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"


def write_model(task: BagTask, folder: Path) -> None:
    """Write a task's weights, settings and contract.

    Raises:
        InputError: The task was not trained, or was built in Python from modules that settings cannot rebuild.
    """
    settings = check_exportable(task)
    contract = task.contract
    assert contract is not None  # checked
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in task.state_dict().items()}
    with atomic_write(folder / WEIGHTS) as partial:
        partial.write_bytes(save(weights, metadata={"format": "pt"}))  # save_file makes files that only the owner reads
    for name, content in ((SETTINGS, settings), (CONTRACT, contract.as_json())):
        with atomic_write(folder / name) as partial:
            partial.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def check_exportable(task: BagTask) -> dict[str, Any]:
    """Return the settings that rebuild a task: its class path and arguments.

    Raises:
        InputError: The task was not trained, or was built in Python from modules that settings cannot rebuild.
    """
    settings = {name: value for name, value in task.settings.items() if name != "_instantiator"}
    if task.contract is None:
        raise InputError("the task was not trained and has no input contract; fit it, or load a checkpoint")
    if "_class_path" not in settings:
        raise InputError(
            f"this {type(task).__name__} was built in Python from modules, which no settings can rebuild; train it by"
            " e2e-abmilx fit with a config, and export its checkpoint"
        )
    return {name: _plain(without_first_weights(value)) for name, value in settings.items()}


def is_model(folder: Path) -> bool:
    """Return whether a folder holds a model."""
    return (folder / CONTRACT).is_file() and (folder / WEIGHTS).is_file()


def read_model(folder: Path) -> dict[str, Any]:
    """Return the content of a folder as that of a checkpoint; nothing is unpickled.

    Raises:
        InputError: A file is missing or damaged.
    """
    try:
        contract, settings = (json.loads((folder / name).read_text(encoding="utf-8")) for name in (CONTRACT, SETTINGS))
        weights: dict[str, Tensor] = load_file(folder / WEIGHTS)
        version = contract["versions"]["lightning"]
        settings = {**settings, "_instantiator": _INSTANTIATOR}
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{folder} is not a complete model ({error}); export or download it again") from error
    except Exception as error:  # safetensors has an error of its own, which derives from Exception only
        raise InputError(f"{folder / WEIGHTS} is damaged ({error}); export or download it again") from error
    return {
        "state_dict": weights,
        "hyper_parameters": settings,
        "contract": contract,
        "pytorch-lightning_version": version,
    }


def read_internal_measures(folder: Path) -> dict[str, Any] | None:
    """Return what a folder keeps of the model's internal test; None if it was exported without one.

    Raises:
        InputError: The file is damaged.
    """
    path = folder / MEASURES
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); export or download the model again") from error


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a config holds
    """Return settings as JSON has them."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
