"""What runs recorded of themselves in ``run.yaml``."""

import math
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from e2e_abmilx.errors import InputError


class Record(NamedTuple):
    """What a run was made with, on what, and how long it took; what it did not record is empty, NaN or None.

    Attributes:
        versions: Of the packages that matter, by name.
        cpu: Model of the first process's CPU.
        cores: Of that machine.
        memory_gib: Of that machine.
        gpus: Models of the GPUs that the run used there.
        processes: On all machines.
        precision: As the trainer's argument.
        encoder_parameters: Trained or not.
        head_parameters: Likewise.
        started: UTC.
        times_resumed: How often an interrupted fit was gone on with.
        fit_seconds: Validation included, preparation of data not; NaN of a fit that has not ended.
        epoch_seconds: Mean over epochs.
        test_seconds: Of the test that followed.
        best_epoch: Of the checkpoint that was tested, from 0 on.
        best_value: Of the metric that it was chosen by.
        monitor: Name of that metric.
    """

    versions: dict[str, str]
    cpu: str
    cores: float
    memory_gib: float
    gpus: tuple[str, ...]
    processes: float
    precision: str
    encoder_parameters: float
    head_parameters: float
    started: datetime | None
    times_resumed: float
    fit_seconds: float
    epoch_seconds: float
    test_seconds: float
    best_epoch: float
    best_value: float
    monitor: str


def read_record(folder: Path) -> Record:
    """Read the record of a run, in which nothing is known where there is none: older runs wrote none.

    Raises:
        InputError: The file is damaged.
    """
    content = _read(folder / "run.yaml")
    versions, hardware, parameters, fit, test, best = (
        content.get(name) or {} for name in ("versions", "hardware", "parameters", "fit", "test", "best")
    )
    return Record(
        versions={name: str(version) for name, version in versions.items() if version is not None},
        cpu=hardware.get("cpu", ""),
        cores=_number(hardware.get("cores")),
        memory_gib=_number(hardware.get("memory_gib")),
        gpus=tuple(hardware.get("gpus", ())),
        processes=_number(hardware.get("processes")),
        precision=str(content.get("precision", "")),
        encoder_parameters=_number(parameters.get("encoder")),
        head_parameters=_number(parameters.get("head")),
        started=fit.get("started"),
        times_resumed=_number(fit.get("times_resumed")),
        fit_seconds=_number(fit.get("seconds") if fit.get("ended") else None),
        epoch_seconds=_number(fit.get("seconds_per_epoch")),
        test_seconds=_number(test.get("seconds")),
        best_epoch=_number(best.get("epoch")),
        best_value=_number(best.get("value")),
        monitor=best.get("monitor", ""),
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{path} is no YAML ({error}); restore or remove it") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no record of a run; restore or remove it")
    return content


def _number(value: float | None) -> float:
    return math.nan if value is None else value
