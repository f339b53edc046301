"""What tasks share in training: encode a bag, pool it, learn from it."""

import io
import logging
import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric, Metric

from e2e_abmilx.augment import Normalize
from e2e_abmilx.data.bag import Bag, Target
from e2e_abmilx.encoders import IMAGENET_MEAN, IMAGENET_STD, Precomputed, count_chunks, encode_chunks
from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.thresholds import Threshold
from e2e_abmilx.heads.base import BagHead, HeadOutput
from e2e_abmilx.heads.sparsity import AttentionSparsity, attention_sparsity
from e2e_abmilx.tasks.evaluating import CaseTask, mean_sparsity
from e2e_abmilx.tasks.loss_watch import LossWatch
from e2e_abmilx.tasks.old_names import METRICS, update_hyperparameters
from e2e_abmilx.tasks.sync_norms import use_timm_sync

logger = logging.getLogger(__name__)

#: The splits that a stage of the trainer looks at.
_SPLITS_OF = {"fit": ("train", "val", "test"), "validate": ("val",), "test": ("test",)}


class BagTask(CaseTask):
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
        train_chunk_size: Patches that pass the encoder at once in training; BatchNorm sees each chunk alone.
        gradient_checkpointing: Compute activations again in the backward pass instead of keeping them: less memory, the
            same gradients.
        decay_norms: Whether the optimizer's weight decay takes in norms and biases, as the authors' does.
    """

    #: What the data must give, as their argument ``target`` has it; whatever it is, if empty.
    target: str = ""

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
        train_chunk_size: int = 512,
        gradient_checkpointing: bool = False,
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
        self.train_chunk_size, self.gradient_checkpointing, self.decay_norms = (
            train_chunk_size,
            gradient_checkpointing,
            decay_norms,
        )
        self.prepare_evaluation()
        self.train_means = nn.ModuleDict(
            # no NaN comes this far, and to look for one would keep the device waiting
            {name: MeanMetric(nan_strategy="disable") for name in ("loss", *AttentionSparsity._fields)}
        )
        self._losses = LossWatch()
        self._gaps_told: set[str] = set()
        self._seed: int | None = None

    @abstractmethod
    def configure_loss(self) -> nn.Module:
        """Return the loss module."""

    def bag_classes(self, bag: Bag) -> Tensor | None:
        """Return the class of every bag, shape ``(B,)``, for heads that learn from it; None where there are none."""
        return None

    def forward(self, bag: Bag) -> HeadOutput:
        """Encode and pool whole bags."""
        return self.head.attend(self.encode(bag), bag.head_mask)

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
        real = None if bag.head_mask is None else bag.positions()
        encoded = encode_chunks(
            nn.Sequential(self.normalize, self.encoder),
            self._cut(self.augment(pixels if real is None else pixels[real])),
            checkpoint=self.gradient_checkpointing and self.training,
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
        chunks = count_chunks(len(pixels), self.train_chunk_size)
        if any(isinstance(layer, nn.SyncBatchNorm) for layer in self.modules()):
            count = torch.tensor(chunks, device=self.device)
            chunks = int(self.trainer.strategy.reduce(count, reduce_op="max"))
        return torch.tensor_split(pixels, chunks)

    def on_fit_start(self) -> None:
        """Take the run's seed, unless a checkpoint has brought it."""
        if self._seed is None:
            self._seed = torch.initial_seed() % 2**64

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
            means |= mean_sparsity(attention_sparsity(output.attention.detach(), bag.head_mask))
        self._log_means(means)
        return loss

    def on_train_epoch_end(self) -> None:
        """Look at the last loss too."""
        self._losses.check()

    def on_validation_epoch_start(self) -> None:
        """Look at the last loss before the model is judged."""
        super().on_validation_epoch_start()
        self._losses.check()

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
        try:
            optimizer = self.optimizer(self._parameter_groups())
        except (ValueError, TypeError) as error:
            raise InputError(
                f"the optimizer refuses its settings: {error}; correct model.optimizer"
            ) from error
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
            self.monitors().check(self.trainer.callbacks, self.why_undefined)  # type: ignore[attr-defined]
        self._check_limits()
        for split in _SPLITS_OF.get(str(getattr(stage, "value", stage)), ()):
            self._warn_of_gaps(split, getattr(data, "targets", {}).get(split, ()))

    def _check_limits(self) -> None:
        """Refuse limits that would part a case in one process while others wait for it."""
        limits = {name: getattr(self.trainer, f"limit_{name}_batches") for name in ("val", "test", "predict")}
        cut = [
            name
            for name, limit in limits.items()
            if limit not in (0, 1.0) or (isinstance(limit, int) and limit)
        ]
        if self.trainer.world_size > 1 and cut and not getattr(self.trainer, "fast_dev_run", False):
            raise InputError(
                f"trainer.limit_{cut[0]}_batches is {limits[cut[0]]}, which ends in the middle of a case, and several processes"
                " would wait for each other; leave it out, or take one device (trainer.devices: 1)"
            )

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
        reasons = dict.fromkeys(covered.undefined.values())
        gaps = [
            f"the {split} split has no {', '.join(name for name, why in covered.undefined.items() if why == reason)}: {reason}"
            for reason in reasons
        ]
        for gap in [*gaps, *(f"the {split} split has {note}" for note in covered.notes)]:
            if gap not in self._gaps_told:
                logger.warning("%s", gap)
                self._gaps_told.add(gap)

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
                setattr(self.train_means[METRICS.get(name, name)], key, value)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override] # Lightning's decorator hides the method's type
        cls,
        checkpoint_path: str | Path | IO[bytes],
        **how: Any,  # noqa: ANN401
    ) -> Self:
        """Build a task from a checkpoint, as Lightning does; checkpoints of earlier names are read too.

        Args:
            checkpoint_path: The file.
            **how: Lightning's other arguments, and arguments of the task that the file's are replaced by.
        """
        saved = torch.load(checkpoint_path, map_location="cpu", weights_only=True)
        saved["hyper_parameters"] = update_hyperparameters(saved.get("hyper_parameters", {}))
        renamed = io.BytesIO()
        torch.save(saved, renamed)
        renamed.seek(0)
        return super().load_from_checkpoint(renamed, **how)

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
