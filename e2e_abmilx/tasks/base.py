"""What classification and survival share: encode a bag, pool it, learn from it, evaluate whole slides."""

import warnings
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric, MetricCollection

from e2e_abmilx.augment import Normalize
from e2e_abmilx.bags import Bag
from e2e_abmilx.encoders import IMAGENET_MEAN, IMAGENET_STD, encode_in_chunks
from e2e_abmilx.errors import InputError
from e2e_abmilx.heads.base import BagHead, HeadOutput
from e2e_abmilx.heads.sparsity import attention_sparsity


class Prediction(NamedTuple):
    """What a task says of one case.

    Attributes:
        case: Name of the case.
        label: Class or time bin, -1 where unknown.
        time: Months; NaN where unknown.
        event: 1 where the event happened.
        scores: What :attr:`BagTask.score_names` names, such as class probabilities.
        output: Logits, attention and embedding, with B = 1.
        coords: Level-0 ``(x, y)`` of each patch, shape ``(N, 2)``.
        scale: Scale of each patch, shape ``(N,)``.
    """

    case: str
    label: int
    time: float
    event: int
    scores: list[float]
    output: HeadOutput
    coords: Tensor
    scale: Tensor


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
    """

    #: The metric that the best checkpoint is chosen by, on validation data.
    monitor: str
    #: Whether more of it is better (``"max"``) or less (``"min"``).
    mode: str = "max"

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
    ) -> None:
        super().__init__()
        self._save_plain_hyperparameters()
        self.encoder = encoder
        self.head = head(_width_of(encoder), num_outputs)
        self.num_outputs = num_outputs
        self.augment = augment or nn.Identity()
        self.normalize = Normalize(
            getattr(encoder, "mean", IMAGENET_MEAN), getattr(encoder, "std", IMAGENET_STD)
        )
        self.loss = loss or self.configure_loss()
        self.optimizer, self.schedule = optimizer, schedule
        self.encoder_chunk, self.recompute = encoder_chunk, recompute
        self.val_metrics = self.configure_metrics().clone(prefix="val/")
        self.test_metrics = self.configure_metrics().clone(prefix="test/")
        #: Names of the classes, known from the data or the checkpoint.
        self.classes: tuple[str, ...] = tuple(map(str, range(num_outputs)))
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

    @abstractmethod
    def bag_scores(self, logits: Tensor) -> Tensor:
        """Return what is reported of a case, shape ``(B, number of score names)``."""

    @abstractmethod
    def score_names(self) -> list[str]:
        """Return the column names of the scores."""

    @abstractmethod
    def update_metrics(self, metrics: MetricCollection, logits: Tensor, bag: Bag) -> None:
        """Add a batch to the metrics."""

    def forward(self, bag: Bag) -> HeadOutput:
        """Encode and pool whole bags."""
        return self.head.attend(self.encode(bag), bag.mask)

    def encode(self, bag: Bag) -> Tensor:
        """Encode the real patches of a batch.

        Returns:
            Features, shape ``(B, N, D)``; zeros for padding.
        """
        if bag.patches.ndim == 3:
            features: Tensor = self.encoder(bag.patches)
            return features
        pixels = self.augment(bag.patches[bag.mask])
        see = nn.Sequential(self.normalize, self.encoder)
        chunk_size = self.encoder_chunk if self.training else len(pixels)
        encoded = encode_in_chunks(see, pixels, chunk_size, checkpoint=self.recompute and self.training)
        features = encoded.new_zeros(*bag.mask.shape, encoded.shape[-1])
        features[bag.mask] = encoded
        return features

    def training_step(self, bag: Bag, batch_idx: int) -> Tensor:
        """Return the loss of a batch of random bags."""
        output = self(bag)
        loss = self.bag_loss(output.logits.float(), bag)
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=len(bag.cases))
        self._log_sparsity("train", output, bag.mask)
        return loss

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

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning's own union of seven
        """Return the optimizer and its schedule, stepped with each optimizer step."""
        optimizer = self.optimizer(filter(lambda parameter: parameter.requires_grad, self.parameters()))
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

    def setup(self, stage: str) -> None:
        """Take the names of the classes from the data and refuse another number of them."""
        classes = tuple(getattr(getattr(self.trainer, "datamodule", None), "classes", ()))
        if classes and len(classes) != self.num_outputs:
            raise InputError(
                f"the data have {len(classes)} classes ({', '.join(classes)}) and the model {self.num_outputs} outputs;"
                f" set model.num_outputs to {len(classes)}, or name the classes (data.classes)"
            )
        self.classes = classes or self.classes

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the names of the classes."""
        checkpoint["classes"] = list(self.classes)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the names of the classes."""
        self.classes = tuple(checkpoint.get("classes", self.classes))

    def _evaluate(self, bag: Bag, metrics: MetricCollection, stage: str) -> Prediction | None:
        whole = self._gather(bag)
        if whole is None:
            return None
        case, output = whole
        logits = output.logits.float()
        self.log(f"{stage}/loss", self.bag_loss(logits, case), batch_size=1, sync_dist=True)
        self.update_metrics(metrics, logits, case)
        self.log_dict(_metrics_of(metrics), batch_size=1)
        self._log_sparsity(stage, output, case.mask)
        return self._predict(case, output)

    def _log_sparsity(self, stage: str, output: HeadOutput, mask: Tensor) -> None:
        """Log how few patches the attention looks at, averaged over heads, bags and the epoch."""
        measures = attention_sparsity(output.attention.detach(), mask).mean_over_heads()
        means = {f"{stage}/{name}": value.mean() for name, value in measures._asdict().items()}
        self.log_dict(means, on_step=False, on_epoch=True, batch_size=len(mask), sync_dist=True)

    def _gather(self, bag: Bag) -> tuple[Bag, HeadOutput] | None:
        """Encode a part of a case; with the last one, pool all of them.

        Returns:
            The case, with features for patches, and the head's output; None before the last part.
        """
        self._parts.append((self.encode(bag), bag.coords, bag.scale))
        if not bag.last:
            return None
        features, coords, scale = (torch.cat(column, dim=1) for column in zip(*self._parts, strict=True))
        self._parts = []
        mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        whole = bag._replace(patches=features, mask=mask, coords=coords, scale=scale)
        return whole, self.head.attend(features, mask)

    def _predict(self, case: Bag, output: HeadOutput) -> Prediction:
        return Prediction(
            case=case.cases[0],
            label=int(case.label[0]),
            time=float(case.time[0]),
            event=int(case.event[0]),
            scores=self.bag_scores(output.logits.float())[0].tolist(),
            output=HeadOutput(*(tensor.float().cpu() for tensor in output)),
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


def _metrics_of(metrics: MetricCollection) -> dict[str, Metric]:
    """The metrics by their full names, as Lightning wants them to compute them once an epoch."""
    return dict(metrics.items())
