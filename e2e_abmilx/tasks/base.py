"""What classification and survival share: encode a bag, pool it, learn from it, evaluate whole slides."""

import logging
import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel
from torchmetrics import MeanMetric, Metric, MetricCollection

from e2e_abmilx.augment import Normalize
from e2e_abmilx.bags import Bag, Target
from e2e_abmilx.encoders import IMAGENET_MEAN, IMAGENET_STD, Precomputed, count_chunks, encode_chunks
from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.thresholds import Threshold
from e2e_abmilx.heads.base import BagHead, HeadOutput
from e2e_abmilx.heads.sparsity import AttentionSparsity, attention_sparsity
from e2e_abmilx.metrics import ScoredCases
from e2e_abmilx.tasks.coverage import Coverage
from e2e_abmilx.tasks.loss_watch import LossWatch
from e2e_abmilx.tasks.monitors import Mode, Monitors
from e2e_abmilx.tasks.prediction import Prediction
from e2e_abmilx.tasks.sync_norms import use_timm_sync

logger = logging.getLogger(__name__)


class BagTask(LightningModule):
    """A patch encoder and a bag head, trained together from labels of cases.

    Args:
        encoder: Patches ``(M, 3, S, S)`` → features ``(M, D)``, with an attribute ``num_features`` = D and,
            where its input is not normalised as ImageNet's, ``mean`` and ``std``.
        head: Called with ``(D, num_outputs)``; returns a :class:`~e2e_abmilx.heads.base.BagHead`.
        num_outputs: K: classes, or time bins.
        augment: Pixels 0 … 255 ``(M, 3, S, S)`` → pixels ``(M, 3, s, s)``, random in training; None leaves
            patches as they are.
        loss: What the task's own loss module is replaced by.
        optimizer: Called with the parameters.
        schedule: Called with the optimizer and the number of its steps in the whole run.
        encoder_chunk: Patches that pass the encoder at once in training; BatchNorm sees each chunk alone.
        recompute: Compute activations again in the backward pass instead of keeping them: less memory, the
            same gradients.
        decay_norms: Whether the optimizer's weight decay takes in norms and biases, as the authors' does.
    """

    #: The metric that the best checkpoint is chosen by, on validation data.
    monitor: str
    #: Whether more of it is better (``"max"``) or less (``"min"``).
    mode: Mode = "max"
    #: What the data must give, as their argument ``target`` has it; whatever it is, if empty.
    target: str = ""
    #: Whether the last score has a threshold, fitted on validation cases.
    has_threshold: bool = True
    #: Whether the loss of a bag means something by itself; otherwise validation logs none.
    loss_of_a_bag: bool = True

    def __init__(
        self,
        encoder: nn.Module,
        head: Callable[[int, int], BagHead],
        num_outputs: int,
        *,
        augment: nn.Module | None = None,
        loss: nn.Module | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(
            params, lr=1.0e-4, weight_decay=1.0e-2
        ),
        schedule: Callable[[Optimizer, int], LRScheduler] | None = None,
        encoder_chunk: int = 512,
        recompute: bool = False,
        decay_norms: bool = True,
    ) -> None:
        super().__init__()
        self._save_plain_hyperparameters()
        self.encoder = encoder
        self.head = head(_width_of(encoder), num_outputs)
        self.head.looks_for_empty_bags = False  # collating refuses them
        self.num_outputs = num_outputs
        self.augment = augment or nn.Identity()
        self.normalize = Normalize(
            getattr(encoder, "mean", IMAGENET_MEAN), getattr(encoder, "std", IMAGENET_STD)
        )
        self.loss = loss or self.configure_loss()
        self.optimizer, self.schedule = optimizer, schedule
        self.encoder_chunk, self.recompute, self.decay_norms = encoder_chunk, recompute, decay_norms
        self.val_metrics = self.configure_metrics().clone(prefix="val/")
        self.test_metrics = self.configure_metrics().clone(prefix="test/")
        self.val_cases, self.test_cases = ScoredCases(), ScoredCases()
        #: Of the last score, fitted on validation cases; None before, and where the task has none.
        self.threshold: Threshold | None = None
        #: Names of the classes, known from the data or the checkpoint.
        self.classes: tuple[str, ...] = tuple(map(str, range(num_outputs)))
        self.train_means = nn.ModuleDict(
            # no NaN comes this far, and to look for one would keep the device waiting
            {name: MeanMetric(nan_strategy="disable") for name in ("loss", *AttentionSparsity._fields)}
        )
        self._losses = LossWatch()
        self._seed: int | None = None
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []

    @abstractmethod
    def configure_loss(self) -> nn.Module:
        """Return the loss module."""

    @abstractmethod
    def configure_metrics(self) -> MetricCollection:
        """Return the metrics of validation and test."""

    @abstractmethod
    def bag_loss(self, logits: Tensor, bag: Bag) -> Tensor:
        """Return the loss of a batch, a scalar, from logits of shape ``(B, K)``."""

    def coverage(self, targets: Sequence[Target], classes: Sequence[str]) -> Coverage:
        """Return what cases with these targets cannot tell."""
        return Coverage()

    def monitors(self) -> Monitors:
        """Return what can be monitored, and which way it gets better."""
        logged = [f"val/{name}" for name in (*AttentionSparsity._fields, "threshold")]
        logged += [f"train/{name}" for name in (*AttentionSparsity._fields, "data_wait")]
        return Monitors(
            self.val_metrics,
            self.monitor,
            self.mode,
            has_loss=self.loss_of_a_bag,
            others=logged,
            # tasks of other people's may log more
            is_complete=type(self).__module__.startswith("e2e_abmilx."),
        )

    def why_undefined(self, metric: str) -> str | None:
        """Return why the validation cases have no value of a metric, by its full name; None where they have, or may."""
        data = getattr(self.trainer, "datamodule", None)
        targets = getattr(data, "targets", {}).get("val", ())
        covered = self.coverage(targets, getattr(data, "classes", ()) or self.classes)
        return covered.undefined.get(metric.removeprefix("val/")) if metric.startswith("val/") else None

    def bag_classes(self, bag: Bag) -> Tensor | None:
        """Return the class of every bag, shape ``(B,)``, for heads that learn from it; None where there are none."""
        return None

    @abstractmethod
    def bag_scores(self, logits: Tensor) -> Tensor:
        """Return what is reported of a case, shape ``(B, number of score names)``."""

    @abstractmethod
    def score_names(self) -> list[str]:
        """Return the column names of the scores."""

    def truth_names(self) -> list[str]:
        """Return the column names of what is known of a case."""
        return ["label"]

    def truth(self, prediction: Prediction) -> list[Any]:
        """Return what is known of a case, as the label table spells it; empty where it is unknown."""
        label = prediction.label
        return [self.classes[label] if isinstance(label, int) and label >= 0 else ""]

    @abstractmethod
    def update_metrics(self, metrics: MetricCollection, logits: Tensor, bag: Bag) -> None:
        """Add a batch to the metrics."""

    def fit_threshold(self, score: NDArray[Any], label: NDArray[Any]) -> Threshold | None:
        """Return the threshold of the last score, from those of the validation cases, shape ``(n,)``; None for none."""
        return None

    def measure_at_threshold(
        self, score: NDArray[Any], label: NDArray[Any], threshold: Threshold
    ) -> dict[str, float]:
        """Return what the threshold makes of the test cases, by name."""
        return {}

    def forward(self, bag: Bag) -> HeadOutput:
        """Encode and pool whole bags."""
        return self.head.attend(self.encode(bag), bag.padding)

    def encode(self, bag: Bag) -> Tensor:
        """Encode the real patches of a batch.

        Returns:
            Features, shape ``(B, N, D)``; zeros for padding.
        """
        assert isinstance(bag.patches, Tensor)  # JPEG streams are decoded on their way to the device
        if bag.patches.ndim == 3:
            features: Tensor = self.encoder(bag.patches)
            return features
        pixels = bag.patches.flatten(0, 1)
        # padding is left out by positions: a mask would make the device count first, and everything wait for that
        real = None if bag.padding is None else bag.positions()
        encoded = encode_chunks(
            nn.Sequential(self.normalize, self.encoder),
            self._cut(self.augment(pixels if real is None else pixels[real])),
            checkpoint=self.recompute and self.training,
        )
        if real is not None:
            encoded = encoded.new_zeros(len(pixels), encoded.shape[-1]).index_copy(0, real, encoded)
        return encoded.view(*bag.mask.shape, -1)

    def _cut(self, pixels: Tensor) -> Sequence[Tensor]:
        """Cut patches into what the encoder sees at once.

        Synchronised BatchNorm waits for all processes at each chunk: there all have as many, though their bags differ.
        """
        if not self.training:
            return [pixels]  # the loader cut them
        chunks = count_chunks(len(pixels), self.encoder_chunk)
        if any(isinstance(layer, nn.SyncBatchNorm) for layer in self.modules()):
            count = torch.tensor(chunks, device=self.device)
            chunks = int(self.trainer.strategy.reduce(count, reduce_op="max"))
        return torch.tensor_split(pixels, chunks)

    def on_fit_start(self) -> None:
        """Take the run's seed, unless a checkpoint has brought it."""
        if self._seed is None:
            self._seed = torch.initial_seed() % 2**64

    def on_train_start(self) -> None:
        """Keep the count of averaged weights on the CPU: it is looked at in each step, and a GPU would be waited for."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            averaged = getattr(callback, "_average_model", None)
            if isinstance(averaged, AveragedModel):
                averaged.n_averaged = averaged.n_averaged.cpu()

    def on_train_epoch_start(self) -> None:
        """Begin the epoch's means anew; Lightning leaves this out where an epoch is gone on with."""
        for metric in self.train_means.children():
            assert isinstance(metric, Metric)
            metric.reset()

    def on_train_batch_start(self, batch: Bag, batch_idx: int) -> None:
        """Make crops, dropout and whatever else is random a function of (seed, epoch, batch, process).

        So a resumed run goes on with what an uninterrupted one would have drawn.
        """
        self._losses.check()
        entropy = [self._seed or 0, self.current_epoch, batch_idx, self.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))

    def training_step(self, bag: Bag, batch_idx: int) -> Tensor:
        """Return the loss of a batch of random bags."""
        output = self(bag)
        loss = self.head.training_loss(
            output, lambda logits: self.bag_loss(logits.float(), bag), self.bag_classes(bag)
        )
        place = f"epoch {self.current_epoch}, batch {batch_idx}, of cases {', '.join(bag.cases)}"
        self._losses.note(loss, place)
        self.log("train/loss_step", loss, prog_bar=True, batch_size=len(bag.cases))
        means = {"loss": loss.detach()}
        if self._is_logged(batch_idx):
            means |= _means(attention_sparsity(output.attention.detach(), bag.padding))
        self._log_means(means)
        return loss

    def on_train_epoch_end(self) -> None:
        """Look at the last loss too."""
        self._losses.check()

    def validation_step(self, bag: Bag, batch_idx: int) -> None:
        """Add a part of a case to validation."""
        self._evaluate(bag, self.val_metrics, "val")

    def test_step(self, bag: Bag, batch_idx: int) -> Prediction | None:  # type: ignore[override]
        """Add a part of a case to the test; its last part brings the prediction."""
        return self._evaluate(bag, self.test_metrics, "test")

    def predict_step(self, bag: Bag, batch_idx: int) -> Prediction | None:
        """Return the prediction of a case with its last part."""
        whole = self._gather(bag)
        return None if whole is None else self._predict(*whole)

    def _is_logged(self, batch_idx: int) -> bool:
        """Whether a batch is one of those that are logged; the sparsity of the others' attention is not sorted out."""
        every = max(self.trainer.log_every_n_steps, 1)  # type: ignore[attr-defined] # the logger connector sets it
        return batch_idx % every == 0 or self.trainer.is_last_batch

    def _log_means(self, values: dict[str, Tensor]) -> None:
        """Log the epoch's means; they are metrics, which a checkpoint keeps when it is written inside an epoch.

        All batches count alike, because all have as many bags: a smaller last one is left out.
        """
        for name, metric in self.train_means.items():
            if name in values:
                metric(values[name])
            full_name = "train/loss_epoch" if name == "loss" else f"train/{name}"
            self.log(full_name, metric, on_step=False, on_epoch=True, metric_attribute=f"train_means.{name}")  # type: ignore[arg-type]

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning's own union of seven
        """Return the optimizer and its schedule, stepped with each optimizer step."""
        optimizer = self.optimizer(self._parameter_groups())
        if self.schedule is None:
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise InputError(
                "a schedule needs the length of the run; set trainer.max_epochs or trainer.max_steps"
            )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.schedule(optimizer, int(steps)), "interval": "step"},
        }

    def _parameter_groups(self) -> list[dict[str, Any]]:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if self.decay_norms:
            return [{"params": trained}]
        vectors = [parameter for parameter in trained if parameter.ndim < 2]  # norms and biases
        return [
            {"params": [parameter for parameter in trained if parameter.ndim >= 2]},
            {"params": vectors, "weight_decay": 0.0},
        ]

    def setup(self, stage: str) -> None:
        """Take the names of the classes from the data; refuse another number of them, or another kind of label."""
        use_timm_sync(self.trainer.strategy)
        data = getattr(self.trainer, "datamodule", None)
        target = getattr(data, "target", self.target)
        if stage != "predict" and self.target and target != self.target:
            raise InputError(
                f"{type(self).__name__} learns from the target {self.target} and the data give {target}; set"
                f" data.target to {self.target}, or take the task of {target}"
            )
        classes = tuple(getattr(data, "classes", ()))
        if classes and len(classes) != self.num_outputs:
            raise InputError(
                f"the data have {len(classes)} classes ({', '.join(classes)}) and the model {self.num_outputs} outputs;"
                f" set model.num_outputs to {len(classes)}, or name the classes (data.classes)"
            )
        self.classes = classes or self.classes
        self._check_width(getattr(data, "num_features", None))
        if stage == "fit":
            self.monitors().check(self.trainer.callbacks)  # type: ignore[attr-defined]
        for split in ("train", "val", "test") if stage == "fit" else (stage,):
            self._warn_of_gaps(split, getattr(data, "targets", {}).get(split, ()))

    def _check_width(self, num_features: int | None) -> None:
        """Refuse features of another width than the encoder that passes them on says."""
        if isinstance(self.encoder, Precomputed) and num_features not in (None, self.encoder.num_features):
            raise InputError(
                f"the files have {num_features} features a patch and the encoder says {self.encoder.num_features}; set"
                f" model.encoder.num_features to {num_features}"
            )

    @rank_zero_only
    def _warn_of_gaps(self, split: str, targets: Sequence[Target]) -> None:
        """Say in words what will be NaN, or a mean over fewer classes than there are."""
        covered = self.coverage(targets, self.classes)
        for name, reason in covered.undefined.items():
            logger.warning("the %s split has no %s: %s", split, name, reason)
        for note in covered.notes:
            logger.warning("the %s split has %s", split, note)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the names of the classes, the seed, the threshold and the epoch's means so far; but no spoilt model."""
        self._losses.check()
        checkpoint["classes"] = list(self.classes)
        checkpoint["seed"] = self._seed
        checkpoint["threshold"] = None if self.threshold is None else asdict(self.threshold)
        checkpoint["train_means"] = {name: metric.metric_state for name, metric in self.train_means.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore them."""
        self.classes = tuple(checkpoint.get("classes", self.classes))
        self._seed = checkpoint.get("seed")
        fitted = checkpoint.get("threshold")
        self.threshold = Threshold(**fitted) if fitted else None
        for name, state in checkpoint.get("train_means", {}).items():
            for key, value in state.items():
                setattr(self.train_means[name], key, value)

    def on_validation_epoch_start(self) -> None:
        """Look at the last loss before the model is judged, and forget parts of a case whose rest never came.

        The check before training and limited runs leave such parts.
        """
        self._losses.check()
        self._parts = []

    def on_test_epoch_start(self) -> None:
        """Forget them here too."""
        self._parts = []

    def on_predict_epoch_start(self) -> None:
        """And here."""
        self._parts = []

    def on_validation_epoch_end(self) -> None:
        """Fit the threshold."""
        cases = self._take_cases(self.val_cases)
        if cases is not None:
            self.threshold = self.fit_threshold(*cases)
            if self.threshold is not None:
                self.log("val/threshold", self.threshold.value)

    def on_test_epoch_end(self) -> None:
        """Measure at the threshold that validation has brought."""
        cases = self._take_cases(self.test_cases)
        if cases is not None and self.threshold is not None:
            measures = self.measure_at_threshold(*cases, self.threshold)
            self.log_dict({f"test/{name}": value for name, value in measures.items()})
            self.log("test/threshold", self.threshold.value)

    def _take_cases(self, cases: ScoredCases) -> tuple[NDArray[Any], NDArray[Any]] | None:
        if not cases.update_called:  # the check before training, and runs that are limited to a few batches
            return None
        # torchmetrics makes a scalar of the column of a single case
        score, label = (column.reshape(-1).cpu().numpy() for column in cases.compute())
        cases.reset()
        return score, label

    def _evaluate(self, bag: Bag, metrics: MetricCollection, stage: str) -> Prediction | None:
        whole = self._gather(bag)
        if whole is None:
            return None
        case, output = whole
        logits = output.logits.float()
        loss = self.bag_loss(logits, case)
        if self.trainer.sanity_checking:  # which ends before every process has seen the end of a case
            return None
        # Lightning rounds the mean number of cases of a process down, and no multiple of their number is rounded
        one_case = self.trainer.world_size
        if self.loss_of_a_bag:
            self.log(f"{stage}/loss", loss, batch_size=one_case, sync_dist=True)
        self.update_metrics(metrics, logits, case)
        if self.has_threshold:
            cases = self.val_cases if stage == "val" else self.test_cases
            cases.update(self.bag_scores(logits)[:, -1], case.label)
        self.log_dict(_metrics_of(metrics), batch_size=1)
        means = _means(attention_sparsity(output.attention, case.mask))
        self.log_dict(
            {f"{stage}/{name}": mean for name, mean in means.items()}, batch_size=one_case, sync_dist=True
        )
        return self._predict(case, output)

    def _gather(self, bag: Bag) -> tuple[Bag, HeadOutput] | None:
        """Encode a part of a case; with the last one, pool all of them.

        Returns:
            The case, with features for patches, and the head's output; None before the last part, and for the
            nothing that fills up a process's share.
        """
        if not bag.mask.numel():
            return None
        self._parts.append((self.encode(bag), bag.coords, bag.scale))
        if not bag.last:
            return None
        features, coords, scale = (torch.cat(column, dim=1) for column in zip(*self._parts, strict=True))
        self._parts = []
        mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        whole = bag._replace(patches=features, mask=mask, coords=coords, scale=scale, real=None)
        return whole, self.head.attend(features)

    def _predict(self, case: Bag, output: HeadOutput) -> Prediction:
        assert isinstance(case.patches, Tensor)  # features by now
        scores = self.bag_scores(output.logits.float())[0].tolist()
        label = case.label[0].tolist()
        return Prediction(
            case=case.cases[0],
            label=label if isinstance(label, int) else tuple(label),
            time=float(case.time[0]),
            event=int(case.event[0]),
            scores=dict(zip(self.score_names(), scores, strict=True)),
            output=HeadOutput(*(tensor.float().cpu() for tensor in output)),
            features=case.patches[0].float().cpu(),
            coords=case.coords[0].cpu(),
            scale=case.scale[0].cpu(),
        )

    def _save_plain_hyperparameters(self) -> None:
        """Keep YAML's class paths, which rebuild the task, but not live modules, which a checkpoint cannot hold."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Attribute .* is an instance of `nn.Module`")
            self.save_hyperparameters()
            self.save_hyperparameters(
                ignore=[name for name, value in self.hparams.items() if callable(value)]
            )


def _width_of(encoder: nn.Module) -> int:
    width = getattr(encoder, "num_features", None)
    if not isinstance(width, int):
        raise InputError(
            f"the encoder {type(encoder).__name__} has no whole number num_features; set it to the features of a patch"
        )
    return width


def _means(sparsity: AttentionSparsity) -> dict[str, Tensor]:
    """Each measure, averaged over heads and bags."""
    return {name: value.mean() for name, value in sparsity.mean_over_heads()._asdict().items()}


def _metrics_of(metrics: MetricCollection) -> dict[str, Metric]:
    """The metrics by their full names, as Lightning wants them to compute them once an epoch."""
    return dict(metrics.items())
