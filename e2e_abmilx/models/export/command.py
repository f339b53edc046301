"""The command ``e2e-abmilx export``: a trained model as one folder that can be handed to others."""

import json
import logging
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from e2e_abmilx.data.inputs import PatchInput
from e2e_abmilx.errors import InputError
from e2e_abmilx.models.export.card import CardMeasure, Performance, model_card
from e2e_abmilx.models.export.hub import push_folder
from e2e_abmilx.models.export.onnx_files import write_onnx
from e2e_abmilx.models.folder import (
    CARD,
    CONTRACT,
    MEASURES,
    SETTINGS,
    WEIGHTS,
    check_exportable,
    is_model,
    read_internal_measures,
    write_model,
)
from e2e_abmilx.models.loading import find_models, load_model
from e2e_abmilx.models.model import Model
from e2e_abmilx.reports.records import read_record
from e2e_abmilx.reports.stored_measures import measures_json
from e2e_abmilx.runs.read import is_finished, read_run, read_settings

logger = logging.getLogger(__name__)

_FILES = (WEIGHTS, SETTINGS, CONTRACT, MEASURES, CARD, "head.onnx", "encoder_head.onnx")


def export(
    model: str, out: Path, onnx: bool = True, license: str | None = None, push: str | None = None, private: bool = True
) -> None:
    """Write a trained model into one folder: weights, input contract with threshold, model card, ONNX.

    ``load_model`` reads the folder, without unpickling anything, and gives the same predictions as the checkpoint bit
    for bit. ``model.safetensors`` holds the weights, ``model.json`` what rebuilds the network, ``contract.json`` the
    input contract, ``internal_test.json`` the measures of the run's test, without predictions, and ``README.md`` the
    model card.

    Args:
        model: A checkpoint, or the folder of a run, whose best checkpoint is meant.
        out: The folder; a model that it already holds is replaced.
        onnx: Also write ``head.onnx`` and ``encoder_head.onnx``; this needs the extra ``export``.
        license: Licence of the weights, such as ``cc-by-nc-4.0``.
        push: Upload the folder to the Hugging Face hub, as ``ORG/NAME``.
        private: Keep the repository on the hub private.

    Raises:
        InputError: There is no such model, more than one, or it cannot be rebuilt from its settings; the folder holds
            something else.
        OnnxError: The head cannot be written as ONNX, or the packages are missing.
        HubError: The upload failed; the folder is complete.
    """
    path = _find_one(model, out)
    loaded = load_model(str(path), device="cpu")
    check_exportable(loaded.tasks[0])
    place = out.resolve()  # which has a name, unlike the folder "."
    partial = place.with_name(f".{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write_files(loaded, path, partial, onnx=onnx, license=license, address=f"hf://{push}" if push else str(out))
        _replace(place, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    logger.info("%s holds %s", out, ", ".join(sorted(file.name for file in out.iterdir())))
    if push is not None:
        logger.info("uploaded to %s", push_folder(out, push, private=private))


def _find_one(model: str, out: Path) -> Path:
    """Return the model to export, after a check that its folder may be written."""
    paths = find_models(model)
    if len(paths) > 1:
        raise InputError(f"{model} names {len(paths)} models; export one of them, such as {paths[0]}")
    if out.resolve() == paths[0].resolve():
        raise InputError(f"{out} is the model itself; name another folder (--out)")
    foreign = [file.name for file in out.iterdir() if file.name not in _FILES] if out.is_dir() else []
    if out.is_file() or foreign or (out.is_dir() and any(out.iterdir()) and not is_model(out)):
        named = f" ({', '.join(sorted(foreign)[:3])})" if foreign else ""
        raise InputError(f"{out} holds something else than an exported model{named}; name a new folder (--out)")
    return paths[0]


def _replace(place: Path, new: Path) -> None:
    """Move a finished folder to its place; an old one is kept until then."""
    old = place.with_name(f".{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    try:
        new.rename(place)
    except OSError:
        if old.exists():
            old.rename(place)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write_files(model: Model, path: Path, folder: Path, *, onnx: bool, license: str | None, address: str) -> None:
    """Write all files of a model that was loaded from ``path``."""
    task = model.tasks[0]
    patch_size = model.contract.input.patch_size if isinstance(model.contract.input, PatchInput) else None
    graphs = write_onnx(task, folder, patch_size=patch_size) if onnx else []
    write_model(task, folder)
    _refuse_changes(load_model(folder, device="cpu").tasks[0].state_dict(), task.state_dict())
    measures = _internal_test(path)
    if measures is not None:
        (folder / MEASURES).write_text(json.dumps(measures, indent=1, ensure_ascii=False), encoding="utf-8")
    run = path.parent if path.is_file() else path
    card = model_card(
        run.resolve().name,
        address,
        model.contract.as_json(),
        record=read_record(run),
        settings=read_settings(run) if (run / "fit.yaml").is_file() else {},
        performance=None if measures is None else _performance(measures),
        onnx=[graph.name for graph in graphs],
        license=license,
    )
    (folder / CARD).write_text(card, encoding="utf-8")


def _internal_test(path: Path) -> dict[str, Any] | None:
    """Return the measures of the test of a run's best checkpoint; None for another checkpoint, or without a test."""
    if path.is_dir():
        return read_internal_measures(path)
    run = path.parent
    if path.name == "best.ckpt" and (run / "predictions.csv").is_file() and is_finished(run):
        return measures_json(read_run(run).predictions)
    logger.warning("%s was not tested in its run, so the model card states no performance", path)
    return None


def _performance(measures: Mapping[str, Any]) -> Performance:
    def number(value: float | None) -> float:
        return math.nan if value is None else value

    found = {
        name: CardMeasure(one["title"], one["definition"], *(number(one[end]) for end in ("point", "low", "high")))
        for name, one in measures["measures"].items()
    }
    return Performance(found, measures["cases"])


def _refuse_changes(written: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not the same, bit for bit, when they are read back."""
    changed = [name for name, value in weights.items() if name not in written or not torch.equal(written[name], value)]
    if changed or len(written) != len(weights):
        raise InputError(
            f"the weights {changed[:3]} are not read back as they were written; check the disk, and export again"
        )
