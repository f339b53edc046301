"""How every task meets data and is saved: its input contract, its checks of data, its checkpoints."""

import io
import logging
import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Self

import torch
from lightning.fabric.utilities.cloud_io import _load as load_checkpoint  # reads URLs too

from e2e_abmilx.cohort import Case
from e2e_abmilx.data.contract import ContractError, InputContract
from e2e_abmilx.data.loaders import BagLoader
from e2e_abmilx.data.seen_cases import SeenCases
from e2e_abmilx.datamodules import BagDataModule
from e2e_abmilx.errors import InputError
from e2e_abmilx.io.old_names import update_callback_states, update_hyperparameters
from e2e_abmilx.tasks.checks import (
    SPLITS_OF,
    check_limits,
    check_outputs,
    check_processes,
    check_target,
    check_width,
    warn_of_gaps,
)
from e2e_abmilx.tasks.descriptions import check_same_pixels, describe_model, versions
from e2e_abmilx.tasks.evaluating import CaseTask
from e2e_abmilx.tasks.sync_norms import use_timm_sync

logger = logging.getLogger(__name__)

_LOADING = ("map_location", "hparams_file", "strict", "weights_only")  # Lightning's arguments, which build nothing


class CheckpointedTask(CaseTask):
    """A task that knows its input contract, which its checkpoints carry and which decides outside ``fit``."""

    #: The data's argument ``target`` that this task learns from; empty if any is accepted.
    target: str = ""

    #: Inner edges of the time bins of a survival model, months, taken from the data or the checkpoint.
    time_edges: tuple[float, ...] = ()

    #: Class path and arguments that a loaded task was built from; empty for a task that was not loaded.
    settings: Mapping[str, Any] = MappingProxyType({})

    _contract: InputContract | None = None
    _seen_before: SeenCases | None = None  # in training before the present one
    _warned_gaps: set[str]

    @property
    def contract(self) -> InputContract | None:
        """The input contract, with the present threshold; None for a task that was neither trained nor loaded."""
        return None if self._contract is None else self._contract.with_threshold(self.threshold)

    def setup(self, stage: str) -> None:
        """Check that data and trainer fit this task; take classes and time bins from the data that it is trained on."""
        use_timm_sync(self.trainer.strategy)
        check_processes(self.trainer)
        check_limits(self.trainer)
        self._meet_data(stage)
        if stage == "fit":
            self.monitors().check(self.trainer.callbacks, self.why_undefined)  # type: ignore[attr-defined]
            self._seen_before = self._seen_before if self._contract is None else self._contract.seen
            self._contract = self._describe()

    def _meet_data(self, stage: str) -> None:
        """Check the data of a stage, whose targets have been numbered."""
        data = getattr(self.trainer, "datamodule", None)
        plan = getattr(data, "plan", data)  # data from outside this package may have no plan of the cohort
        if stage != "predict" and self.target:
            check_target(type(self).__name__, self.target, getattr(plan, "target", self.target))
        classes = tuple(getattr(data, "classes", ()))
        check_outputs(classes, self.num_outputs)
        if stage != "fit" and self._contract is not None and classes:
            self._contract.check_target("", classes)  # data from outside this package may have others
        self.classes = classes or self.classes
        self.time_edges = tuple(getattr(data, "time_edges", ())) or self.time_edges
        check_width(self.encoder, getattr(data, "num_features", None))
        for split in SPLITS_OF.get(str(getattr(stage, "value", stage)), ()):
            targets = getattr(data, "targets", {}).get(split, ())
            warn_of_gaps(split, self.coverage(targets, self.classes), self._warned_gaps)

    def _describe(self) -> InputContract:
        """Return the contract of a model that is trained on the trainer's data; the cases follow when it is saved."""
        data = getattr(self.trainer, "datamodule", None)
        return InputContract(
            target=self.target or getattr(getattr(data, "plan", None), "target", None),
            classes=self.classes,
            time_edges=self.time_edges,
            input=data.describe_input() if isinstance(data, BagDataModule) else None,
            precision=str(self.trainer.precision),
            model=describe_model(self),
            versions=versions(),
        )

    def _note_seen_cases(self) -> None:
        """Add the training and validation cases to the contract; once, because marks of slides take time."""
        data = getattr(self._trainer, "datamodule", None)
        if self._contract is None or self._contract.seen is not None or not isinstance(data, BagDataModule):
            return
        if cases := _cases_of_fit(data):
            seen = SeenCases.of(cases, data.slide_marks(cases), self._seen_before)
            self._contract = self._contract.with_seen(seen)

    def on_fit_end(self) -> None:
        """Note the cases, which a test in the same process must not hold either."""
        self._note_seen_cases()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the input contract, and under their own names classes, time edges and threshold."""
        self._note_seen_cases()
        contract = self.contract or InputContract(self.target, self.classes, self.time_edges, threshold=self.threshold)
        checkpoint["contract"] = contract.as_json()
        checkpoint["classes"], checkpoint["time_edges"] = list(self.classes), list(self.time_edges)
        checkpoint["threshold"] = None if self.threshold is None else asdict(self.threshold)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the contract, and let it decide on data that are evaluated.

        Callbacks find their states under their present names.

        Raises:
            ContractError: The data are not those that a resumed model was trained on, or do not fit an evaluated one.
        """
        checkpoint["callbacks"] = update_callback_states(checkpoint.get("callbacks", {}))
        contract = InputContract.of_checkpoint(checkpoint)
        trainer = self._trainer
        command = None if trainer is None or trainer.state.fn is None else trainer.state.fn.value
        if not contract.complete:
            logger.warning(
                "this checkpoint was made by a release that did not record µm/px, patch size and target of the training"
                " data, so they are not compared with those of the data"
            )
        data = getattr(trainer, "datamodule", None)
        check_same_pixels(contract.model, describe_model(self))
        self._refuse_other_outputs(contract)
        if command == "fit" and self._contract is not None:
            cases = _cases_of_fit(data) if isinstance(data, BagDataModule) else []
            given = SeenCases.of(cases, {}) if cases else None
            contract.check_resumed(replace(self._contract, seen=given))
        if command != "fit" or self._contract is None or contract.complete:  # else the data tell more
            self._contract = contract
            self.classes, self.time_edges = contract.classes or self.classes, contract.time_edges
        self.threshold = contract.threshold
        if command not in (None, "fit") and isinstance(data, BagDataModule):
            data.obey(contract)
            self._meet_data(str(command))

    def on_test_start(self) -> None:
        """Refuse loaders whose labels number other classes than this model's."""
        self._refuse_other_classes(self.trainer.test_dataloaders)

    def on_validation_start(self) -> None:
        """Refuse loaders whose labels number other classes than this model's."""
        self._refuse_other_classes(self.trainer.val_dataloaders)

    def _refuse_other_classes(self, loaders: object) -> None:
        """Refuse loaders of a data module that was set up without this model, and so numbered its own classes.

        Raises:
            ContractError: There is one.
        """
        if (
            getattr(self.trainer, "datamodule", None) is not None
            or self._contract is None
            or self._contract.input is None
        ):
            return  # the data have been met, or the model was not trained on a data module of this package
        known = self._contract.classes
        for loader in loaders if isinstance(loaders, list) else [loaders]:
            given = loader.classes if isinstance(loader, BagLoader) else ()
            if given and given != known:
                raise ContractError(
                    f"the model's classes are {list(known)}, and the loader's labels number {list(given)}; give the data"
                    " module itself (datamodule=…), or set its contract to the model's before its setup"
                )

    def _refuse_other_outputs(self, contract: InputContract) -> None:
        """Refuse a contract that names more or fewer outputs than the task has, as one edited by hand may.

        Raises:
            ContractError: It does.
        """
        if contract.classes and len(contract.classes) != self.num_outputs:
            raise ContractError(
                f"the model's contract names {len(contract.classes)} classes ({', '.join(map(str, contract.classes))}), and"
                f" the model has {self.num_outputs} outputs; export or save the model again"
            )

    @classmethod
    def load_from_checkpoint(  # type: ignore[override] # Lightning's decorator hides the method's type
        cls,
        checkpoint_path: str | Path | IO[bytes],
        **how: Any,  # noqa: ANN401
    ) -> Self:
        """Build a task from a checkpoint, as Lightning does; checkpoints with names of earlier releases work too.

        Args:
            checkpoint_path: The file.
            **how: Lightning's other arguments, and arguments of the task that replace those in the file.
        """
        saved = load_checkpoint(checkpoint_path, map_location="cpu", weights_only=True)
        return cls.rebuild(saved, **how)

    @classmethod
    def rebuild(cls, saved: Mapping[str, Any], **how: Any) -> Self:  # noqa: ANN401
        """Build a task from the content of a checkpoint, with the arguments of :meth:`load_from_checkpoint`."""
        if "state_dict" not in saved:
            raise InputError(
                f"a checkpoint holds a state_dict, and this file only {sorted(saved)}; name a .ckpt of a fit"
            )
        settings = update_hyperparameters(saved.get("hyper_parameters", {}))
        settings = {name: without_first_weights(value) for name, value in settings.items()}
        needed = {name: value for name, value in saved.items() if name != "optimizer_states"}
        torch.save({**needed, "hyper_parameters": settings}, renamed := io.BytesIO())
        renamed.seek(0)
        task: Self = super().load_from_checkpoint(renamed, **how)
        replaced = {name: value for name, value in how.items() if name not in _LOADING}
        built_in_python = any(callable(value) for value in replaced.values())
        task.settings = {} if built_in_python else settings | replaced
        return task

    def _save_plain_hyperparameters(self) -> None:
        """Save class paths from YAML, which can rebuild the task, but not modules, which a checkpoint cannot hold."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Attribute .* is an instance of `nn.Module`")
            self.save_hyperparameters()
            live = [name for name, value in self.hparams.items() if callable(value)]
            self.save_hyperparameters(ignore=live)


def _cases_of_fit(data: BagDataModule) -> list[Case]:
    """Return the cases that a model is trained on or chosen by."""
    return [*data.cases["train"], *data.cases["val"]]


def without_first_weights(setting: Any) -> Any:  # noqa: ANN401 - whatever a config holds
    """Return a setting whose encoders start from random weights, which those of the checkpoint replace.

    The files and downloads that they were first trained from may not exist on this machine.
    """
    if not isinstance(setting, Mapping):
        return setting
    plain = {name: without_first_weights(value) for name, value in setting.items()}
    starts = {"weights": None, "pretrained": False}
    if "pretrained" in plain or ("weights" in plain and isinstance(plain["weights"], (str, Path))):
        plain |= {name: value for name, value in starts.items() if name in plain}
    return plain
