"""How every task learns: encode the patches of a bag, pool them, and update both networks from the bag's loss."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric, Metric

from e2e_abmilx.data.bag import Bag
from e2e_abmilx.encoders import IMAGENET_MEAN, IMAGENET_STD, count_chunks, encode_chunks
from e2e_abmilx.encoders.augment import Normalize
from e2e_abmilx.errors import InputError
from e2e_abmilx.heads.base import BagHead, HeadOutput
from e2e_abmilx.heads.sparsity import AttentionSparsity, attention_sparsity
from e2e_abmilx.io.old_names import new_metric
from e2e_abmilx.tasks.checkpointed import CheckpointedTask
from e2e_abmilx.tasks.evaluating import mean_sparsity
from e2e_abmilx.tasks.loss_watch import LossWatch


class BagTask(CheckpointedTask):
    """A patch encoder and a bag head, trained together from labels of cases.

    Args:
        encoder: Patches ``(M, 3, S, S)`` → features ``(M, D)``, with an attribute ``num_features`` = D and,
            unless its input is normalised as for ImageNet, ``mean`` and ``std``.
        head: Called with ``(D, num_outputs)``; returns a :class:`~e2e_abmilx.heads.base.BagHead`. On the command line,
            a head that replaces that of a config keeps those of its settings that both have, such as
            ``hidden_features``.
        num_outputs: K, classes or time bins; 1 for a regression.
        augment: Pixels 0 … 255 ``(M, 3, S, S)`` → pixels ``(M, 3, s, s)``, random in training; None leaves
            patches unchanged.
        loss: Replaces the task's own loss module.
        optimizer: Called with the parameters.
        schedule: Called with the optimizer and the number of its steps in the whole run.
        train_chunk_size: Largest number of patches that are encoded at once in training; BatchNorm normalises each
            chunk by its own statistics.
        gradient_checkpointing: Recompute activations in the backward pass instead of keeping them: less memory, the
            same gradients.
        compile_encoder: Compile the encoder with ``torch.compile`` for training. The first step takes half a minute
            longer; evaluation, whose chunks differ in size, is not compiled.
        decay_norms: Whether weight decay applies to norms and biases, as in the authors' code.
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: Callable[[int, int], BagHead],
        num_outputs: int,
        *,
        augment: nn.Module | None = None,
        loss: nn.Module | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=1.0e-4, weight_decay=1.0e-2),
        schedule: Callable[[Optimizer, int], LRScheduler] | None = None,
        train_chunk_size: int = 512,
        gradient_checkpointing: bool = False,
        compile_encoder: bool = False,
        decay_norms: bool = True,
    ) -> None:
        super().__init__()
        self._save_plain_hyperparameters()
        self.encoder = encoder
        self.head = head(_width_of(encoder), num_outputs)
        self.head.looks_for_empty_bags = False  # the loaders refuse them
        self.num_outputs = num_outputs
        self.augment = augment or nn.Identity()
        self.normalize = Normalize(getattr(encoder, "mean", IMAGENET_MEAN), getattr(encoder, "std", IMAGENET_STD))
        self.loss = loss or self.configure_loss()
        self.optimizer, self.schedule, self.decay_norms = optimizer, schedule, decay_norms
        self.train_chunk_size, self.gradient_checkpointing = train_chunk_size, gradient_checkpointing
        self.compile_encoder = compile_encoder
        self.prepare_evaluation()
        self.train_means = nn.ModuleDict(
            # NaN is refused before, and looking for NaN would synchronise with the device
            {name: MeanMetric(nan_strategy="disable") for name in ("loss", *AttentionSparsity._fields)}
        )
        self._losses = LossWatch()
        self._warned_gaps: set[str] = set()
        self._seed: int | None = None

    @abstractmethod
    def configure_loss(self) -> nn.Module:
        """Return the loss module."""

    def bag_classes(self, bag: Bag) -> Tensor | None:
        """Return the class of every bag, shape ``(B,)``, for heads that learn from it; None without classes."""
        return None

    def forward(self, bag: Bag) -> HeadOutput:
        """Encode and pool whole bags."""
        return self.head.attend(self.encode(bag), bag.head_mask)

    def encode(self, bag: Bag) -> Tensor:
        """Return the features of a batch, shape ``(B, N, D)``; only real patches are encoded, padding has zeros."""
        assert isinstance(bag.patches, Tensor)  # JPEG streams are decoded when a batch is moved to the device
        if bag.patches.ndim == 3:
            features: Tensor = self.encoder(bag.patches)
            return features
        pixels = bag.patches.flatten(0, 1)
        # real patches are selected by position, because selecting by a mask would synchronise with the device
        real = None if bag.head_mask is None else bag.positions()
        encoded = encode_chunks(
            self._compiled_encoder if self.compile_encoder and self.training else self._pixel_encoder(),
            self._split_into_chunks(self.augment(pixels if real is None else pixels[real])),
            checkpoint=self.gradient_checkpointing and self.training,
        )
        if real is not None:
            encoded = encoded.new_zeros(len(pixels), encoded.shape[-1]).index_copy(0, real, encoded)
        return encoded.view(*bag.mask.shape, -1)

    def _pixel_encoder(self) -> nn.Module:
        return nn.Sequential(self.normalize, self.encoder)

    @cached_property  # which registers no module: the weights are those of the encoder
    def _compiled_encoder(self) -> Callable[[Tensor], Tensor]:
        compiled: Callable[[Tensor], Tensor] = torch.compile(self._pixel_encoder())
        return compiled

    def _split_into_chunks(self, pixels: Tensor) -> Sequence[Tensor]:
        """Split patches into the chunks that are encoded at once.

        Synchronised BatchNorm waits for all processes at each chunk, so all processes need the same number of chunks,
        although their bags differ in size.
        """
        if not self.training:
            return [pixels]  # the loader has split them
        chunks = count_chunks(len(pixels), self.train_chunk_size)
        if any(isinstance(layer, nn.SyncBatchNorm) for layer in self.modules()):
            count = torch.tensor(chunks, device=self.device)
            chunks = int(self.trainer.strategy.reduce(count, reduce_op="max"))
        return torch.tensor_split(pixels, chunks)

    def on_fit_start(self) -> None:
        """Take the run's seed, unless a checkpoint has restored it."""
        if self._seed is None:
            self._seed = torch.initial_seed() % 2**64

    def on_train_epoch_start(self) -> None:
        """Reset the epoch's means; Lightning omits this call if an epoch is resumed."""
        for metric in self.train_means.children():
            assert isinstance(metric, Metric)
            metric.reset()

    def on_train_batch_start(self, batch: Bag, batch_idx: int) -> None:
        """Seed crops, dropout and other randomness from (seed, epoch, batch, process), as a resumed run needs."""
        self._losses.check()
        entropy = [self._seed or 0, self.current_epoch, batch_idx, self.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))

    def training_step(self, bag: Bag, batch_idx: int) -> Tensor:
        """Return the loss of a batch of random bags."""
        output = self(bag)
        loss = self.head.training_loss(output, lambda logits: self.bag_loss(logits.float(), bag), self.bag_classes(bag))
        place = f"epoch {self.current_epoch}, batch {batch_idx}, of cases {', '.join(bag.cases)}"
        self._losses.note(loss, place)
        self.log("train/loss_step", loss, batch_size=len(bag.cases))  # prog_bar=True would read it in every step
        means = {"loss": loss.detach()}
        every = max(self.trainer.log_every_n_steps, 1)  # type: ignore[attr-defined] # the logger connector sets it
        if batch_idx % every == 0 or self.trainer.is_last_batch:  # sparsity needs sorting, which other batches save
            means |= mean_sparsity(attention_sparsity(output.attention.detach(), bag.head_mask))
        self._log_means(means)
        return loss

    def on_train_epoch_end(self) -> None:
        """Check the last loss too, and log the numbers of the head that are worth watching."""
        self._losses.check()
        self.log_dict({f"train/{name}": value for name, value in self.head.watched().items()})

    def on_validation_epoch_start(self) -> None:
        """Check the last loss before the model is evaluated."""
        super().on_validation_epoch_start()
        self._losses.check()

    def _log_means(self, values: dict[str, Tensor]) -> None:
        """Log the epoch's means, as metrics that a checkpoint within the epoch keeps.

        All batches have equal weight, because all have the same size: a smaller last batch is left out.
        """
        for name, metric in self.train_means.items():
            if name in values:
                metric(values[name])
            full_name = "train/loss_epoch" if name == "loss" else f"train/{name}"
            self.log(full_name, metric, on_step=False, on_epoch=True, metric_attribute=f"train_means.{name}")  # type: ignore[arg-type]

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning's own union of seven
        """Return the optimizer, and its schedule, which advances with each optimizer step."""
        try:
            optimizer = self.optimizer(self._parameter_groups())
        except (ValueError, TypeError) as error:
            raise InputError(f"the optimizer refuses its settings: {error}; correct model.optimizer") from error
        if self.schedule is None:
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise InputError("a schedule needs the length of the run; set trainer.max_epochs or trainer.max_steps")
        schedule = {"scheduler": self.schedule(optimizer, int(steps)), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Return the trained parameters; without ``decay_norms``, norms and biases are a group without decay."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if self.decay_norms:
            return [{"params": trained}]
        norms_and_biases = [parameter for parameter in trained if parameter.ndim < 2]
        weights = [parameter for parameter in trained if parameter.ndim >= 2]
        return [{"params": weights}, {"params": norms_and_biases, "weight_decay": 0.0}]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the contract, the seed and each process's means so far; refuse to save after a non-finite loss."""
        self._losses.check()
        super().on_save_checkpoint(checkpoint)
        checkpoint["seed"] = self._seed
        means: Any = {name: metric.metric_state for name, metric in self.train_means.items()}
        checkpoint["train_means"] = self.all_gather(means) if torch.distributed.is_initialized() else means

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what :meth:`on_save_checkpoint` saved; the means of processes that are gone go to others."""
        super().on_load_checkpoint(checkpoint)
        self._seed = checkpoint.get("seed")
        processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        for name, state in checkpoint.get("train_means", {}).items():
            for key, values in state.items():
                own = values.reshape(-1)[self.global_rank :: processes].sum()
                setattr(self.train_means[new_metric(name)], key, own)


def _width_of(encoder: nn.Module) -> int:
    width = getattr(encoder, "num_features", None)
    if not isinstance(width, int):
        raise InputError(
            f"the encoder {type(encoder).__name__} has no whole number num_features; set it to the features per patch"
        )
    return width
