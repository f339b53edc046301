"""The config of a run, in the run's folder."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from e2e_abmilx.training.callbacks.run_folder import folder_of


class RunConfig(SaveConfigCallback):
    """Write the config into the run's folder, whatever the logger is.

    It is written only when the run starts, so that a run that is refused leaves none.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write nothing yet, unlike Lightning's callback."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the config, unless it was written before."""
        if self.already_saved or not trainer.is_global_zero:
            return
        self.already_saved = True
        folder = folder_of(trainer)
        folder.mkdir(parents=True, exist_ok=True)
        self.parser.save(self.config, folder / self.config_filename, skip_unset=False, overwrite=True)

    on_validation_start = on_test_start = on_predict_start = on_fit_start
