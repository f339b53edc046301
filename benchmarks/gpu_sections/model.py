"""The measured model, its batches, and its training step on tensors in memory."""

from typing import NamedTuple

import torch

from e2e_abmilx import ABMILX, ClassificationTask, ResNetEncoder
from e2e_abmilx.encoders import encode_in_chunks
from e2e_abmilx.encoders.augment import RandomCrops


class Batch(NamedTuple):
    """The sizes of a training batch of a recipe.

    Attributes:
        encoder: Name of the ResNet.
        bags: B.
        patches: Patches per bag.
        side: Side of a crop, pixels.
        stored: Side of a patch in the store, pixels.
    """

    encoder: str
    bags: int
    patches: int
    side: int = 224
    stored: int = 256

    @property
    def size(self) -> int:
        """Patches per batch."""
        return self.bags * self.patches


#: The paper's settings for BRCA.
BATCHES = (Batch("resnet18", 3, 512), Batch("resnet50", 4, 128))
TINY_BATCHES = (Batch("resnet18", 2, 4, 32, 48), Batch("resnet50", 2, 2, 32, 48))
_HALVES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def make_task(batch: Batch, *, train_chunk_size: int = 512, gradient_checkpointing: bool = False) -> ClassificationTask:
    """Build ResNet and ABMILX with random weights, as in the recipes."""
    torch.manual_seed(0)
    return ClassificationTask(
        ResNetEncoder(batch.encoder, pretrained=False),
        lambda width, outputs: ABMILX(width, outputs, hidden_features=256, num_heads=8),
        2,
        augment=RandomCrops(batch.side),
        train_chunk_size=train_chunk_size,
        gradient_checkpointing=gradient_checkpointing,
    )


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the autocast context of one of Lightning's precisions."""
    half = _HALVES.get(precision)
    return torch.autocast(device.type, half, enabled=half is not None)


class BareStep:
    """A training step on normalised pixels that are already on the device: no loader, no crops, no Lightning.

    Args:
        task: The model; it is moved to the device.
        batch: Sizes of the batch.
        device: The device.
        precision: The trainer's precision.
    """

    def __init__(self, task: ClassificationTask, batch: Batch, device: torch.device, precision: str) -> None:
        self.task, self.batch, self.device, self.precision = task.to(device).train(), batch, device, precision
        self.optimizer = torch.optim.AdamW(task.parameters())
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "16-mixed")
        pixels = torch.randn(batch.size, 3, batch.side, batch.side, device=device)
        self.pixels = pixels.contiguous(memory_format=torch.channels_last)
        self.label = torch.arange(batch.bags, device=device) % 2

    def __call__(self) -> None:
        """Run one step: encoder, head, loss, gradients and optimizer."""
        with autocast(self.device, self.precision):
            features = encode_in_chunks(self.task.encoder, self.pixels, self.task.train_chunk_size)
            logits = self.task.head(features.unflatten(0, (self.batch.bags, self.batch.patches)))
        loss = self.task.loss(logits.float(), self.label)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
