"""Tasks of a user, who chooses the checkpoint by another metric."""

from e2e_abmilx.tasks import ClassificationTask


class LowEce(ClassificationTask):
    """Choose by the calibration error, whose mode is known."""

    monitor = "val/ece"


class LowCost(ClassificationTask):
    """Choose by an own metric, of which lower is better: it is lowest in epoch 1."""

    monitor, mode = "val/cost", "min"

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        self.log("val/cost", float((self.current_epoch - 1) ** 2))


class UnknownCost(LowCost):
    """Leave open which direction is better."""

    mode = None


class HighLoss(ClassificationTask):
    """Contradict a known metric."""

    monitor, mode = "val/loss", "max"
