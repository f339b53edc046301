"""How every task evaluates: whole cases, encoded in parts, with their scores, metrics and thresholds."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import MetricCollection

from e2e_abmilx.data.bag import Bag, Target
from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.thresholds import Threshold
from e2e_abmilx.heads.base import BagHead, HeadOutput
from e2e_abmilx.heads.sparsity import AttentionSparsity, attention_sparsity
from e2e_abmilx.metrics import ScoredCases
from e2e_abmilx.tasks.coverage import Coverage
from e2e_abmilx.tasks.monitors import Mode, Monitors
from e2e_abmilx.tasks.prediction import PredictedPatches, Prediction


class CaseTask(LightningModule):
    """Evaluation of cases: encode a case in parts, pool it as a whole, and add it to the metrics.

    A subclass sets ``head``, ``loss`` and ``num_outputs`` and then calls :meth:`prepare_evaluation`.
    """

    #: The metric, on validation data, by which the best checkpoint is chosen.
    monitor: str
    #: Whether the monitor is maximised (``"max"``) or minimised (``"min"``); None for the metric's own direction.
    mode: Mode | None = None
    #: Whether the last score has a threshold, fitted on validation cases.
    has_threshold: bool = True
    #: Whether the loss of a single bag is meaningful; otherwise validation logs no loss.
    loss_of_a_bag: bool = True

    encoder: nn.Module
    head: BagHead
    loss: nn.Module
    num_outputs: int

    def prepare_evaluation(self) -> None:
        """Create the metrics and the rest of the state that evaluation needs."""
        self.val_metrics = self.configure_metrics().clone(prefix="val/")
        self.test_metrics = self.configure_metrics().clone(prefix="test/")
        self.val_cases, self.test_cases = ScoredCases(), ScoredCases()
        #: Threshold of the last score, fitted on validation cases; None before, and for tasks without one.
        self.threshold: Threshold | None = None
        #: Names of the classes, taken from the data or the checkpoint.
        self.classes: tuple[str, ...] = tuple(map(str, range(self.num_outputs)))
        #: The patches of the case that was predicted last, on the task's device; None before.
        self.predicted_patches: PredictedPatches | None = None
        self._parts: list[tuple[Tensor, Tensor, Tensor, Tensor | None]] = []
        self._whole_cases = 0

    @abstractmethod
    def encode(self, bag: Bag) -> Tensor:
        """Return the features of a batch's patches, shape ``(B, N, D)``."""

    def bag_loss(self, logits: Tensor, bag: Bag) -> Tensor:
        """Return the loss of a batch, a scalar, from logits of shape ``(B, K)``."""
        loss: Tensor = self.loss(logits, bag.label)
        return loss

    @abstractmethod
    def configure_metrics(self) -> MetricCollection:
        """Return the metrics of validation and test."""

    def update_metrics(self, metrics: MetricCollection, logits: Tensor, bag: Bag) -> None:
        """Add a batch to the metrics."""
        metrics.update(self.bag_scores(logits), bag.label)

    def coverage(self, targets: Sequence[Target], classes: Sequence[str]) -> Coverage:
        """Return which metrics are undefined for cases with these targets."""
        return Coverage()

    def monitors(self) -> Monitors:
        """Return the metrics that can be monitored, each with its mode.

        Raises:
            InputError: The mode that the task sets contradicts its metric.
        """
        sparsity = AttentionSparsity._fields
        modes: dict[str, Mode | None] = dict.fromkeys(f"val/{name}" for name in (*sparsity, "threshold"))
        modes |= dict.fromkeys(f"train/{name}" for name in (*sparsity, "data_wait", *self.head.watched()))
        for name, metric in self.val_metrics.items():
            better = metric.higher_is_better
            modes[name] = None if better is None else "max" if better else "min"
        modes |= {"train/loss_step": "min", "train/loss_epoch": "min"}
        if self.loss_of_a_bag:
            modes["val/loss"] = "min"
        # tasks from outside this package may log other metrics
        monitors = Monitors(modes, is_complete=type(self).__module__.startswith("e2e_abmilx."))
        return monitors if self.mode is None else monitors.with_mode(self.monitor, self.mode, type(self).__name__)

    def why_undefined(self, metric: str) -> str | None:
        """Return why a metric, given by its full name, is undefined on the validation cases; None if it is not."""
        data = getattr(self.trainer, "datamodule", None)
        targets = getattr(data, "targets", {}).get("val", ())
        covered = self.coverage(targets, getattr(data, "classes", ()) or self.classes)
        return covered.undefined.get(metric.removeprefix("val/")) if metric.startswith("val/") else None

    @abstractmethod
    def bag_scores(self, logits: Tensor) -> Tensor:
        """Return the reported scores of cases, shape ``(B, number of score names)``."""

    def score_names(self) -> list[str]:
        """Return the column names of the scores; by default one probability per class."""
        return [f"probability_{name}" for name in self.classes]

    def truth_names(self) -> list[str]:
        """Return the column names of the ground truth of a case."""
        return ["label"]

    def truth(self, prediction: Prediction) -> list[Any]:
        """Return the ground truth of a case, spelled as in the label table; empty if it is unknown."""
        label = prediction.label
        return [self.classes[label] if isinstance(label, int) and label >= 0 else ""]

    def fit_threshold(self, score: NDArray[Any], label: NDArray[Any]) -> Threshold | None:
        """Return the threshold of the last score, fitted on validation cases, shape ``(n,)``; None for no threshold."""
        return None

    def measure_at_threshold(self, score: NDArray[Any], label: NDArray[Any], threshold: Threshold) -> dict[str, float]:
        """Return measures of the test cases at the threshold, by name."""
        return {}

    def validation_step(self, bag: Bag, batch_idx: int) -> None:
        """Add a part of a case to validation."""
        self._evaluate(bag, self.val_metrics, "val")

    def test_step(self, bag: Bag, batch_idx: int) -> Prediction | None:  # type: ignore[override]
        """Add a part of a case to the test; return the prediction with the case's last part."""
        whole = self._evaluate(bag, self.test_metrics, "test")
        return None if whole is None else self._predict(*whole)

    def predict_step(self, bag: Bag, batch_idx: int) -> Prediction | None:
        """Return the prediction for a case with its last part."""
        whole = self.gather(bag)
        return None if whole is None else self._predict(*whole)

    def on_validation_epoch_start(self) -> None:
        """Drop the parts of incomplete cases, which the sanity check and limited runs leave."""
        self._parts, self._whole_cases, self.predicted_patches = [], 0, None

    on_test_epoch_start = on_validation_epoch_start
    on_predict_epoch_start = on_validation_epoch_start

    def on_validation_epoch_end(self) -> None:
        """Fit the threshold."""
        self._check_whole_cases("limit_val_batches")
        cases = self._take_cases(self.val_cases)
        if cases is not None:
            self.threshold = self.fit_threshold(*cases)
            if self.threshold is not None:
                self.log("val/threshold", self.threshold.value)

    def on_test_epoch_end(self) -> None:
        """Compute the measures at the threshold that was fitted in validation."""
        self._check_whole_cases("limit_test_batches")
        cases = self._take_cases(self.test_cases)
        if cases is not None and self.threshold is not None:
            measures = self.measure_at_threshold(*cases, self.threshold)
            self.log_dict({f"test/{name}": value for name, value in measures.items()})
            self.log("test/threshold", self.threshold.value)

    def _take_cases(self, cases: ScoredCases) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Return scores and labels of the cases so far and forget them; None without cases, as in limited runs."""
        if not cases.update_called:
            return None
        # reshape, because torchmetrics returns a scalar for a single case
        score, label = (column.reshape(-1).cpu().numpy() for column in cases.compute())
        cases.reset()
        return score, label

    def _evaluate(self, bag: Bag, metrics: MetricCollection, stage: str) -> tuple[Bag, HeadOutput] | None:
        """Gather a part of a case as :meth:`gather` does, and add the whole case to the metrics."""
        whole = self.gather(bag)
        if whole is None:
            return None
        case, output = whole
        logits = output.logits.float()
        loss = self.bag_loss(logits, case)
        # in a trial run, several processes end at different points of a case
        trial = getattr(self.trainer, "fast_dev_run", False) and self.trainer.world_size > 1
        if trial or self.trainer.sanity_checking:
            return None
        self._whole_cases += 1
        # Lightning divides batch sizes by the number of processes and rounds down, so use a multiple of that number
        one_case = self.trainer.world_size
        if self.loss_of_a_bag:
            self.log(f"{stage}/loss", loss, batch_size=one_case, sync_dist=True)
        self.update_metrics(metrics, logits, case)
        if self.has_threshold:
            cases = self.val_cases if stage == "val" else self.test_cases
            cases.update(self.bag_scores(logits)[:, -1], case.label)
        self.log_dict(dict(metrics.items()), batch_size=1)  # as metrics, which Lightning computes once per epoch
        means = mean_sparsity(attention_sparsity(output.attention, case.mask))
        named = {f"{stage}/{name}": mean for name, mean in means.items()}
        self.log_dict(named, batch_size=one_case, sync_dist=True)
        return whole

    def _check_whole_cases(self, limit: str) -> None:
        """Refuse an evaluation that ended before the first case was complete."""
        trial = self.trainer.sanity_checking or getattr(self.trainer, "fast_dev_run", False)
        if not self._whole_cases and not trial:
            raise InputError(
                f"no case was evaluated as a whole: trainer.{limit} is {getattr(self.trainer, limit)}, and a slide comes in"
                " several parts; raise it or leave it out, or make parts larger (data.eval_chunk_size)"
            )

    def gather(self, bag: Bag) -> tuple[Bag, HeadOutput] | None:
        """Encode a part of a case; with its last part, pool all parts.

        Returns:
            The case, with features in place of patches, and the head's output; None before the last part, and for the
            empty bags that give all processes the same number of batches. Patches are row by row; ``order`` is the rank
            of each patch in the order of the stores, None if that is the same.
        """
        if not bag.mask.numel():
            return None
        self._parts.append((self.encode(bag), bag.coords, bag.scale, bag.order))
        if not bag.last:
            return None
        features, coords, scale = (torch.cat(column, dim=1) for column in list(zip(*self._parts, strict=True))[:3])
        orders = [order for *_, order in self._parts if order is not None]
        ranks = torch.cat(orders, dim=1) if len(orders) == len(self._parts) else None
        if ranks is not None:  # of stores in random order: some heads need a sequence
            places = ranks[0].argsort()
            features, coords, scale = features[:, places], coords[:, places], scale[:, places]
        self._parts = []
        mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        whole = bag._replace(patches=features, mask=mask, coords=coords, scale=scale, real=None, order=ranks)
        return whole, self.head.attend(features)

    def _predict(self, case: Bag, output: HeadOutput) -> Prediction:
        assert isinstance(case.patches, Tensor)  # features, which gather put there
        self.predicted_patches = PredictedPatches(
            HeadOutput(*(tensor.float() for tensor in output)), case.patches[0].float(), case.coords[0], case.scale[0]
        )
        scores = self.bag_scores(output.logits.float())[0].tolist()
        label = case.label[0].tolist()
        return Prediction(
            case=case.cases[0],
            label=tuple(label) if isinstance(label, list) else label,
            time=float(case.time[0]),
            event=int(case.event[0]),
            scores=dict(zip(self.score_names(), scores, strict=True)),
        )


def mean_sparsity(sparsity: AttentionSparsity) -> dict[str, Tensor]:
    """Return each measure by its name, averaged over attention heads and bags."""
    return {name: value.mean() for name, value in sparsity.mean_over_heads()._asdict().items()}
