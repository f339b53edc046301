"""LightningCLI for bag tasks: fit, validate, test and predict."""

import logging
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import e2e_abmilx.heads
import e2e_abmilx.tasks.schedules  # noqa: F401 - once imported, a config can name a class without its module
from e2e_abmilx.data.contract import InputContract
from e2e_abmilx.datamodules import BagDataModule
from e2e_abmilx.errors import InputError
from e2e_abmilx.store.locations import without_secrets
from e2e_abmilx.tasks import BagTask
from e2e_abmilx.tasks.checks import check_processes
from e2e_abmilx.training.callbacks import (
    AttentionMaps,
    BestCheckpoint,
    DataWait,
    EmbeddingTable,
    LastCheckpoint,
    MemoryAdvice,
    PredictionTable,
    RunRecord,
    SplitTable,
)
from e2e_abmilx.training.callbacks.run_config import RunConfig
from e2e_abmilx.training.callbacks.run_folder import RUN_FILES, folder_of
from e2e_abmilx.training.checkpoint_files import find_checkpoint, find_trained, read_plain
from e2e_abmilx.training.checkpoint_settings import keep_stated, read_model_settings
from e2e_abmilx.training.lost_process import explain_lost_process
from e2e_abmilx.training.metric_table import metric_table
from e2e_abmilx.training.parser import BagArgumentParser
from e2e_abmilx.training.trainer_defaults import trainer_defaults

logger = logging.getLogger(__name__)

#: How jsonargparse reports what an optional class raises, here in the outermost of nested classes.
_OPTIONAL = re.compile(
    r"\n *Errors:\n *- (.*)\n *- Expected a <class 'NoneType'>\n *Given value type: .*Namespace", re.DOTALL
)


class BagCLI(LightningCLI):
    """LightningCLI that keeps the files of a run in one folder, and tests the best checkpoint after a fit.

    Attributes:
        tested: Folder with the predictions of a finished test, in the first process; None in the others, and without
            a test.
    """

    tested: Path | None = None
    _stated: Any = None  # of the model, without defaults

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks that every run has, and the short help."""
        parser.add_lightning_class_args(BestCheckpoint, "checkpoint")
        parser.add_lightning_class_args(LastCheckpoint, "last_checkpoint")
        parser.add_lightning_class_args(PredictionTable, "predictions")
        parser.add_lightning_class_args(EmbeddingTable, "embeddings")
        parser.add_lightning_class_args(AttentionMaps, "attention_maps")
        parser.add_lightning_class_args(SplitTable, "split_table")
        parser.add_lightning_class_args(RunRecord, "run_record")
        parser.add_lightning_class_args(DataWait, "data_wait")
        parser.add_lightning_class_args(MemoryAdvice, "memory_advice")
        if isinstance(parser, BagArgumentParser):  # Lightning's own has one help
            parser.add_help_of_all()

    def before_instantiate_classes(self) -> None:
        """Name the config file after the command, so that a test does not overwrite the config of the training."""
        self.save_config_kwargs = {"config_filename": f"{self.subcommand}.yaml", "overwrite": True}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401
        """Parse options, and find the checkpoint before Lightning restores its settings."""
        super().parse_arguments(parser, args)
        command = self.config.get("subcommand")
        if command is not None:
            self._find_checkpoint(command, self.config[command])
            if self.config[command].ckpt_path is not None:
                self._stated = parser.parse_args(args, defaults=False)[command].get("model")

    def _parse_ckpt_path(self) -> None:
        """Restore the model's settings from the checkpoint, as Lightning does, but under their present names.

        Raises:
            InputError: The user states others.
        """
        command = self.config.get("subcommand")
        path = command and self.config[command].get("ckpt_path")
        if not path or not Path(path).is_file():
            return
        settings = read_model_settings(path)
        if not settings:
            return
        try:
            self.config = self.parser.parse_object({command: {"model": settings}}, self.config)
        except SystemExit:
            logger.error("the model's settings in %s cannot be used, for the reason above", path)
            raise
        keep_stated(self._stated, self.config[command].model, path)

    def _find_checkpoint(self, command: str, config: Any) -> None:  # noqa: ANN401 - jsonargparse's namespace
        """Replace ``ckpt_path`` by the file that it means; only fits, trials and features can do without one."""
        run = Path(config.trainer.default_root_dir or f"runs/{command}")
        config.ckpt_path = find_checkpoint(config.ckpt_path, run)
        callbacks = config.trainer.callbacks or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        writes_features = any(str(callback.class_path).endswith("FeatureWriter") for callback in callbacks)
        may_be_untrained = command == "fit" or config.trainer.fast_dev_run or writes_features
        if config.ckpt_path is None and not may_be_untrained:
            config.ckpt_path = find_trained(command, run)

    def instantiate_classes(self) -> None:
        """Build model, data and trainer.

        Raises:
            InputError: A class refuses its arguments.
        """
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise InputError(without_secrets(_reason(str(error)))) from error
        path = self._get(self.config_init, "ckpt_path")
        if self.subcommand != "fit" and path and isinstance(self.datamodule, BagDataModule):
            self.datamodule.contract = _read_contract(path)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401
        """Build the trainer, with defaults for the arguments that the config leaves open.

        Raises:
            InputError: Two callbacks cannot be told apart in a checkpoint, or processes would be left out.
        """
        checkpoint = self._get(self.config, "ckpt_path") if self.subcommand == "fit" else None
        settings = self._get(self.config_init, "trainer")
        defaults = trainer_defaults(settings, str(self.subcommand or "fit"), checkpoint)
        try:
            trainer = super().instantiate_trainer(**(kwargs | defaults))
        except RuntimeError as error:
            if "more than one stateful callback" not in str(error):
                raise
            raise InputError(
                f"{str(error).partition('.')[0]}: a checkpoint tells their states apart by monitor, mode and interval, so one"
                " of these must differ; every run has one BestCheckpoint already (--checkpoint.monitor)"
            ) from error
        check_processes(trainer)  # the task checks it too, but only after slides are cached
        return trainer

    def validate(self, **how: Any) -> None:  # noqa: ANN401
        """Validate, and print the metrics."""
        self._print_metrics(self.trainer.validate, **how)

    def test(self, **how: Any) -> None:  # noqa: ANN401
        """Test, and print the metrics."""
        self._print_metrics(self.trainer.test, **how)

    def _print_metrics(self, evaluate: Callable[..., Any], *, verbose: bool = True, **how: Any) -> None:  # noqa: ANN401
        """Evaluate; a terminal gets our table of the metrics, and other output Lightning's."""
        ours = verbose and sys.stdout.isatty()
        (metrics, *_) = evaluate(verbose=verbose and not ours, **how)
        if ours and self.trainer.is_global_zero:
            print(metric_table(metrics))

    def predict(self, model: BagTask, **kwargs: Any) -> None:  # noqa: ANN401
        """Predict without keeping all predictions in memory; callbacks write them."""
        self.trainer.predict(model, **(kwargs | {"return_predictions": False}))

    def after_fit(self) -> None:
        """Test the best checkpoint if there is a test split."""
        if self._get(self.config_init, "trainer").fast_dev_run or self.trainer.interrupted:
            return
        data = self.datamodule
        if isinstance(data, BagDataModule) and not data.cases["test"]:
            logger.info("no test split: the run ends without a test")
            return
        found = self.trainer.checkpoint_callbacks
        best = next(callback for callback in found if isinstance(callback, BestCheckpoint))
        if not best.best_model_path:
            raise InputError(
                "no checkpoint was chosen, because validation did not run, so none is tested; validate more often"
                " (trainer.val_check_interval, trainer.check_val_every_n_epoch), or fit for longer"
            )
        self.test(model=self.model, datamodule=data, ckpt_path=best.best_model_path)
        self.after_test()
        if self.tested is not None:
            files = [name for name in RUN_FILES if (self.tested / name).exists()]
            logger.info("%s holds %s", self.tested, ", ".join(files))

    def after_test(self) -> None:
        """Record where the predictions are."""
        if self.trainer.is_global_zero and not self._get(self.config_init, "trainer").fast_dev_run:
            self.tested = folder_of(self.trainer)


def run(words: list[str]) -> Path | None:
    """Run fit, validate, test or predict, with the other words as its options.

    Args:
        words: Command and options. Only a config with a section per command, ``--config``, may precede the command.

    Returns:
        Folder with the predictions of a finished test; None without a test, and in all processes but the first.
    """
    torch.set_float32_matmul_precision("high")
    _filter_messages()
    try:
        cli = _cli_for(words[0])(
            BagTask,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            save_config_callback=RunConfig,
            args=words,
            parser_class=BagArgumentParser,
            parser_kwargs={"prog": "e2e-abmilx"},
        )
    except MisconfigurationException as error:  # how Lightning reports errors that users can fix
        raise InputError(str(error)) from error
    except RuntimeError as error:
        reason = explain_lost_process(error, words[0])
        if reason is None:
            raise
        raise InputError(reason) from error
    return cli.tested


def _cli_for(first: str) -> type[BagCLI]:
    """Return a BagCLI with the command that is the first word alone, since each parser takes time; else with all."""
    if first not in BagCLI.subcommands():  # a config, which may have sections of all commands
        return BagCLI

    class OneCommand(BagCLI):
        @staticmethod
        def subcommands() -> dict[str, set[str]]:
            return {first: BagCLI.subcommands()[first]}

    return OneCommand


def _reason(text: str) -> str:
    """Return what a class says of its arguments, without what jsonargparse writes around it: types and all arguments."""
    while found := _OPTIONAL.search(text):
        text = found[1]
    return text


def _read_contract(path: str) -> InputContract | None:
    """Return the contract in a checkpoint file; None for folders and addresses, which Lightning resolves later."""
    return InputContract.of_checkpoint(read_plain(path)) if Path(path).is_file() else None


def _filter_messages() -> None:
    """Hide messages that users cannot act on: tips, and warnings about how Lightning and its libraries work together."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda record: "💡" not in record.getMessage())
    for message in (
        ".*isinstance.treespec, LeafSpec.* is deprecated",
        ".*is not supported by the model summary",
        "LightningCLI's args parameter is intended to run from within Python",  # as it does here
        "predict returned None",  # only the last part of a case has a prediction
    ):
        warnings.filterwarnings("ignore", message=message)
