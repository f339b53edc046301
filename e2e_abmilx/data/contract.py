"""The input contract of a trained model: what it takes, what its outputs mean, and what it has seen."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np

from e2e_abmilx.data.inputs import ModelInput, PatchInput, input_as_json, input_from_json
from e2e_abmilx.data.seen_cases import SeenCases
from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.thresholds import Threshold

logger = logging.getLogger(__name__)

_FORMAT = 1


class ContractError(InputError):
    """Data or labels do not fit a trained model."""


@dataclass(frozen=True)
class InputContract:
    """What a trained model takes and gives; every checkpoint carries it, and it decides outside ``fit``.

    Attributes:
        target: The data's argument ``target``; None where unknown.
        classes: Class names in the order of the outputs, or ``("0", …)`` for time bins.
        time_edges: Inner edges of the time bins, months.
        input: What its bags hold; None where unknown.
        seen: The cases that it was trained and validated on; None where unknown.
        threshold: Threshold of the last score; None without one.
        precision: The trainer's precision in training; None where unknown.
        model: Task, encoder, head, crop and normalisation, in words.
        versions: Versions of this package and of those that compute.
        complete: False for checkpoints of releases that recorded only classes, time edges and threshold.
    """

    target: str | None
    classes: tuple[str, ...] = ()
    time_edges: tuple[float, ...] = ()
    input: ModelInput | None = None
    seen: SeenCases | None = None
    threshold: Threshold | None = None
    precision: str | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    complete: bool = True

    def check_input(self, given: ModelInput | None) -> None:
        """Refuse data of another kind, size or resolution.

        Args:
            given: What the bags of the data hold; None where unknown, such as for data from outside this package.

        Raises:
            ContractError: They differ.
        """
        if self.input is None or given is None:
            return
        for difference in self.input.differences(given):
            raise ContractError(difference)
        for unknown in self.input.unknowns(given):
            logger.warning("%s", unknown)

    def check_target(self, target: str, stated: Sequence[str] | None) -> None:
        """Refuse labels of another kind, or other classes, or classes in another order.

        Args:
            target: Kind of the labels; empty where unknown.
            stated: The classes that the settings of the data state; None if the model's are to be used.

        Raises:
            ContractError: They differ.
        """
        if target and self.target not in (None, "", target):
            raise ContractError(
                f"the model was trained on the target {self.target}, and data.target is {target}; set it to"
                f" {self.target}, or use a model of {target}"
            )
        if stated is not None and self.classes and tuple(stated) != self.classes:
            raise ContractError(
                f"the model's classes are {list(self.classes)}, in this order, and data.classes is {list(stated)}; set it"
                " to the model's, or leave it out"
            )

    def check_resumed(self, current: Self) -> None:
        """Refuse to resume training on data other than those of the checkpoint, which this contract comes from.

        Raises:
            ContractError: Target, classes, time bins, input or cases differ.
        """
        if not current.classes:
            return
        self.check_target(current.target or "", current.classes)
        ours, theirs = np.array(self.time_edges), np.array(current.time_edges)
        known = self.complete or len(ours)  # the first release did not record them
        if known and (ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=1e-6)):
            raise ContractError(
                f"the checkpoint's time bins end at {self.time_edges} months, and those of the data at"
                f" {current.time_edges}; resume with the same labels and splits, or start a new run"
            )
        self.check_input(current.input)
        if isinstance(self.input, PatchInput) and isinstance(current.input, PatchInput):
            for difference in self.input.of_all_scales().differences(current.input.of_all_scales()):
                raise ContractError(difference)
        if self.seen is not None and current.seen is not None and not self.seen.include(current.seen):
            raise ContractError(
                f"some of the {current.seen.cases} training and validation cases of the data are not among the"
                f" {self.seen.cases} of the checkpoint; resume with the same labels, splits and fold, or start a new run"
            )

    def as_json(self) -> dict[str, Any]:
        """Return the contract as a JSON object."""
        return {
            "format": _FORMAT,
            "target": self.target,
            "classes": list(self.classes),
            "time_edges": list(self.time_edges),
            "time_unit": "months",
            "input": input_as_json(self.input),
            "seen": None if self.seen is None else self.seen.as_json(),
            "threshold": None if self.threshold is None else asdict(self.threshold),
            "precision": self.precision,
            "model": dict(self.model),
            "versions": dict(self.versions),
            "complete": self.complete,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return a contract from what :meth:`as_json` returned.

        Raises:
            ContractError: A later release wrote it, or it is damaged.
        """
        if not isinstance(content, Mapping):
            raise ContractError(
                f"the model's contract is damaged (a {type(content).__name__}); export or save the model again"
            )
        if content.get("format") != _FORMAT:
            raise ContractError(
                f"the model's contract has format {content.get('format')!r}, and this release reads format {_FORMAT}; update"
                " e2e-abmilx, or load the model with the release that saved it"
            )
        try:
            return cls(
                target=content["target"],
                classes=_names(content["classes"]),
                time_edges=_increasing(content["time_edges"]),
                input=input_from_json(content["input"]),
                seen=SeenCases.from_json(content["seen"]),
                threshold=_threshold(content["threshold"]),
                precision=content["precision"],
                model=content["model"],
                versions=content["versions"],
                complete=content.get("complete", True),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ContractError(f"the model's contract is damaged ({error}); export or save the model again") from error

    @classmethod
    def of_checkpoint(cls, checkpoint: Mapping[str, Any]) -> Self:
        """Return the contract of a checkpoint; that of an earlier release has classes, time edges and threshold only."""
        if "contract" in checkpoint:
            return cls.from_json(checkpoint["contract"])
        fitted = checkpoint.get("threshold")
        return cls(
            None,
            tuple(checkpoint.get("classes", ())),
            tuple(checkpoint.get("time_edges", ())),
            threshold=Threshold(**fitted) if fitted else None,
            complete=False,
        )

    def with_threshold(self, threshold: Threshold | None) -> Self:
        """Return the contract with another threshold."""
        return replace(self, threshold=threshold)

    def with_seen(self, seen: SeenCases) -> Self:
        """Return the contract with the cases that the model has seen."""
        return replace(self, seen=seen)


def _names(classes: Sequence[str]) -> tuple[str, ...]:
    """Return classes that are a list of different names; data from outside this package may name them by numbers."""
    if not isinstance(classes, list):
        raise TypeError(f"classes is {classes!r}, which is no list")
    if len(set(classes)) < len(classes):
        raise ValueError(f"a class is named twice in {classes}")
    return tuple(classes)


def _increasing(edges: Sequence[float]) -> tuple[float, ...]:
    """Return edges of time bins that are increasing numbers."""
    if not (np.diff([-1.0, *edges]) > 0).all():
        raise ValueError(f"the time edges {edges} do not increase from 0")
    return tuple(edges)


def _threshold(content: Mapping[str, Any] | None) -> Threshold | None:
    """Return a threshold whose value is a number."""
    if content and not isinstance(content["value"], int | float):
        raise TypeError(f"the threshold is {content['value']!r}, which is no number")
    return Threshold(**content) if content else None
