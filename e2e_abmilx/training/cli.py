"""LightningCLI for bag tasks: where a run's files go, which precision, and a test at the end of a fit."""

import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

import e2e_abmilx.heads
import e2e_abmilx.tasks.schedules  # noqa: F401 - with these imported a config names classes without their modules
from e2e_abmilx.datamodules import BagDataModule
from e2e_abmilx.errors import InputError
from e2e_abmilx.tasks import BagTask
from e2e_abmilx.tasks.old_names import update_hyperparameters
from e2e_abmilx.training.callbacks import (
    BestCheckpoint,
    DataWait,
    FeatureWriter,
    LastCheckpoint,
    MemoryAdvice,
    PredictionTable,
    ProgressLines,
    RunRecord,
    SplitTable,
)
from e2e_abmilx.training.callbacks.run_folder import RUN_FILES, RunFolder, find_checkpoint, folder_of
from e2e_abmilx.training.loggers import RunLogger
from e2e_abmilx.training.old_options import refuse_old_options

logger = logging.getLogger(__name__)


class RunConfig(SaveConfigCallback):
    """Keep the config of a run in its folder, whatever logger there is, once the run really begins."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wait: what is refused from here on leaves no config."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it."""
        self._write(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it."""
        self._write(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it."""
        self._write(trainer)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it."""
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if self.already_saved or not trainer.is_global_zero:
            return
        self.already_saved = True
        folder = folder_of(trainer)
        folder.mkdir(parents=True, exist_ok=True)
        self.parser.save(self.config, folder / self.config_filename, skip_none=False, overwrite=True)


class BagCLI(LightningCLI):
    """LightningCLI whose run lives in one folder, ``trainer.default_root_dir``."""

    #: Where a finished test has left its predictions, in the first process; None in others, and without a test.
    tested: Path | None = None

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks that every run has."""
        parser.add_lightning_class_args(BestCheckpoint, "checkpoint")
        parser.add_lightning_class_args(LastCheckpoint, "last_checkpoint")
        parser.add_lightning_class_args(PredictionTable, "predictions")
        parser.add_lightning_class_args(SplitTable, "split_table")
        parser.add_lightning_class_args(RunRecord, "run_record")
        parser.add_lightning_class_args(DataWait, "data_wait")
        parser.add_lightning_class_args(MemoryAdvice, "memory_advice")

    def before_instantiate_classes(self) -> None:
        """Keep one config per verb, so that a test does not overwrite that of the training."""
        self.save_config_kwargs = {"config_filename": f"{self.subcommand}.yaml", "overwrite": True}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401
        """Parse, and settle which checkpoint is meant before its settings are restored."""
        super().parse_arguments(parser, args)
        verb = self.config.get("subcommand")
        if verb is not None:
            self._find_checkpoint(verb, self.config[verb])

    def _parse_ckpt_path(self) -> None:
        """Restore the model's settings from the checkpoint, those of earlier names too."""
        verb = self.config.get("subcommand")
        path = verb and self.config[verb].get("ckpt_path")
        if not path or not Path(path).is_file():
            return
        saved = torch.load(path, map_location="cpu", weights_only=True).get("hyper_parameters", {})
        settings = update_hyperparameters(saved)
        settings.pop("_instantiator", None)
        if "_class_path" in settings:
            settings = {"class_path": settings.pop("_class_path"), "dict_kwargs": settings}
        if settings:
            self.config = self.parser.parse_object({verb: {"model": settings}}, self.config)

    def _find_checkpoint(self, verb: str, config: Any) -> None:  # noqa: ANN401 - jsonargparse's namespace
        """Settle which file the model comes from; only a fit, and features, begin without one."""
        run = Path(config.trainer.default_root_dir or f"runs/{verb}")
        config.ckpt_path = find_checkpoint(config.ckpt_path, run)
        callbacks = config.trainer.callbacks or []
        kinds = [str(one.class_path) for one in (callbacks if isinstance(callbacks, list) else [callbacks])]
        untrained = config.trainer.fast_dev_run or any(kind.endswith("FeatureWriter") for kind in kinds)
        if verb == "fit" or config.ckpt_path is not None or untrained:
            return
        best = run / "best.ckpt"
        if not best.is_file():
            raise InputError(f"{verb} needs a trained model: name one (--ckpt_path); {best} is not there")
        logger.info("no --ckpt_path is given: the model is %s", best)
        config.ckpt_path = str(best)

    def instantiate_classes(self) -> None:
        """Build everything; a refused argument is the user's to mend."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise InputError(str(error)) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401
        """Fill in the run folder, its logger and the device's best precision where the config leaves them open."""
        settings = self._get(self.config_init, "trainer")
        run = Path(settings.default_root_dir or f"runs/{self.subcommand}")
        _make_folder(run)
        verb = str(self.subcommand or "fit")
        checkpoint = self._get(self.config, "ckpt_path") if self.subcommand == "fit" else None
        resume = checkpoint is not None and Path(checkpoint).resolve().parent == run.resolve()
        kwargs["default_root_dir"] = str(run)
        if settings.logger in (None, True):
            kwargs["logger"] = RunLogger(run, version="" if verb == "fit" else verb, resume=resume)
        if settings.enable_checkpointing is False:
            raise InputError(
                "trainer.enable_checkpointing is false, but a run keeps best.ckpt, which is tested, and last.ckpt, to go on"
                " from; leave it out, or try things out with --trainer.fast_dev_run true"
            )
        callbacks = settings.callbacks or []
        callbacks = [
            RunFolder(verb, resume=resume),
            *(callbacks if isinstance(callbacks, list) else [callbacks]),
        ]
        kwargs["callbacks"] = callbacks
        if settings.precision is None and any(isinstance(callback, FeatureWriter) for callback in callbacks):
            kwargs["precision"] = "32-true"
            logger.info("precision 32-true, so that features that others will use are not rounded")
        elif settings.precision is None:
            kwargs["precision"] = best_precision(settings.accelerator)
            logger.info(
                "precision %s, as this device has it (trainer.precision states another)", kwargs["precision"]
            )
        shows_own = any(isinstance(callback, ProgressBar) for callback in callbacks)
        # Lightning's bar goes to standard output
        if settings.enable_progress_bar in (None, True) and not shows_own and not sys.stdout.isatty():
            kwargs["callbacks"] = [*callbacks, ProgressLines()]
        elif settings.enable_progress_bar in (None, True) and not shows_own and torch.cuda.is_available():
            # to show the loss is to wait for it
            kwargs["callbacks"] = [*callbacks, TQDMProgressBar(refresh_rate=10)]
        return super().instantiate_trainer(**kwargs)

    def predict(self, model: BagTask, **kwargs: Any) -> None:  # noqa: ANN401
        """Predict; callbacks take the predictions, which would fill the memory if they were all kept."""
        self.trainer.predict(model, **(kwargs | {"return_predictions": False}))

    def after_fit(self) -> None:
        """Test the best checkpoint where there is a test split."""
        if self._get(self.config_init, "trainer").fast_dev_run or self.trainer.interrupted:
            return
        data = self.datamodule
        if isinstance(data, BagDataModule) and not data.cases["test"]:
            logger.info("no test split: the run ends without a test")
            return
        folder = self.trainer.default_root_dir
        chosen = next(one for one in self.trainer.checkpoint_callbacks if isinstance(one, BestCheckpoint))
        if not chosen.best_model_path:
            raise InputError(
                "no checkpoint was chosen, because validation did not run, so none is tested; validate more often"
                " (trainer.val_check_interval, trainer.check_val_every_n_epoch), or fit for longer"
            )
        self.trainer.test(self.model, datamodule=data, ckpt_path=chosen.best_model_path)
        self.after_test()
        if self.trainer.is_global_zero:
            logger.info(
                "%s holds %s", folder, ", ".join(name for name in RUN_FILES if Path(folder, name).exists())
            )

    def after_test(self) -> None:
        """Note where the predictions are."""
        if self.trainer.is_global_zero and not self._get(self.config_init, "trainer").fast_dev_run:
            self.tested = folder_of(self.trainer)


class BagArgumentParser(LightningArgumentParser):
    """LightningCLI's parser, for which null means none however deep an option lies, and half a name is none."""

    def __init__(self, *args: Any, **how: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **{"allow_abbrev": False, **how})
        self._words: Sequence[str] = ()

    def parse_args(self, args: Any = None, *more: Any, **how: Any) -> Any:  # noqa: ANN401
        """Parse options.

        jsonargparse hands an option of a class within a class on as a word, ``--weights=null`` as ``--weights=None``,
        which then is a text, or a file of that name.
        """
        if self.exit_on_error:
            self._words = sys.argv[1:] if args is None else args
        elif args:  # parsers of classes do not exit; the user's own words are left alone
            args = [re.sub(r"^(--[^=]+)=None$", r"\1=null", word) for word in args]
        return super().parse_args(args, *more, **how)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End with what is wrong.

        Raises:
            InputError: An option has a new name.
        """
        if self.exit_on_error:
            refuse_old_options(self._words)
        super().error(message, ex)


def run(args: list[str] | None, *, epilog: str) -> Path | None:
    """Run one of Lightning's verbs.

    Args:
        args: Verb and options; by default those of the process.
        epilog: Last line of the help.

    Returns:
        Folder with the predictions of a finished test; None without one, and in all processes but the first.
    """
    torch.set_float32_matmul_precision("high")
    _hush()
    try:
        done = BagCLI(
            BagTask,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            save_config_callback=RunConfig,
            args=args,
            parser_class=BagArgumentParser,
            parser_kwargs={"prog": "e2e-abmilx", "epilog": epilog},
        )
    except MisconfigurationException as error:  # Lightning's word for what is the user's to mend
        raise InputError(str(error)) from error
    return done.tested


def _hush() -> None:
    """Leave out what users can do nothing about: advertisements, and warnings between Lightning and its libraries."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "💡" not in record.getMessage()
    )
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.* is deprecated")
    warnings.filterwarnings("ignore", message=".*is not supported by the model summary")
    # crossval and compare hand on the words that they were given
    warnings.filterwarnings(
        "ignore", message="LightningCLI's args parameter is intended to run from within Python"
    )
    warnings.filterwarnings(
        "ignore", message="predict returned None"
    )  # a part of a case has no prediction yet


def best_precision(accelerator: str) -> str:
    """The usual precision of training on this machine.

    bf16 on GPUs that have it and fp16 on older ones. On a CPU bf16 where it has instructions for it (AMX, or
    AVX-512 BF16, on which ResNet-18 trains 1.6 times as fast as in float32), else float32.

    Args:
        accelerator: As the trainer's argument.
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.backends.mps.is_available())
    if on_cpu and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()):
        return "bf16-mixed"
    return "32-true"


def _make_folder(run: Path) -> None:
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{run} cannot be made ({error.strerror}); set trainer.default_root_dir") from error
    if not os.access(run, os.W_OK):
        raise InputError(
            f"{run} cannot be written; set trainer.default_root_dir to a folder that you may write to"
        )
