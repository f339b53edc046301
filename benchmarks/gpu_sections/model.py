"""The model that is measured, its sizes, and its training step on tensors that are there."""

from typing import NamedTuple

import torch

from e2e_abmilx import ABMILX, ClassificationTask, ResNetEncoder
from e2e_abmilx.augment import RandomCrops
from e2e_abmilx.encoders import encode_in_chunks


class Batch(NamedTuple):
    """A training batch of a recipe.

    Attributes:
        encoder: Name of the ResNet.
        bags: B.
        patches: Patches of a bag.
        side: Pixels of a crop.
        stored: Pixels of a patch in the store.
    """

    encoder: str
    bags: int
    patches: int
    side: int = 224
    stored: int = 256

    @property
    def size(self) -> int:
        """Patches in all."""
        return self.bags * self.patches


#: The paper's settings for BRCA.
BATCHES = (Batch("resnet18", 3, 512), Batch("resnet50", 4, 128))
TINY_BATCHES = (Batch("resnet18", 2, 4, 32, 48), Batch("resnet50", 2, 2, 32, 48))
_HALVES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def make_task(
    batch: Batch, *, train_chunk_size: int = 512, gradient_checkpointing: bool = False
) -> ClassificationTask:
    """ResNet and ABMILX with random weights, as in the recipes."""
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
    """The context of a precision that Lightning knows by that name."""
    half = _HALVES.get(precision)
    return torch.autocast(device.type, half, enabled=half is not None)


class BareStep:
    """Encoder, head, loss and optimizer on normalised pixels that lie on the device: no loader, no crops, no loop.

    Args:
        task: The model; it is moved.
        batch: Its batch.
        device: Where.
        precision: Of the trainer.
    """

    def __init__(self, task: ClassificationTask, batch: Batch, device: torch.device, precision: str) -> None:
        self.task, self.batch, self.device, self.precision = task.to(device).train(), batch, device, precision
        self.optimizer = torch.optim.AdamW(task.parameters())
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "16-mixed")
        pixels = torch.randn(batch.size, 3, batch.side, batch.side, device=device)
        self.pixels = pixels.contiguous(memory_format=torch.channels_last)
        self.label = torch.arange(batch.bags, device=device) % 2

    def __call__(self) -> None:
        """Make one step."""
        with autocast(self.device, self.precision):
            features = encode_in_chunks(self.task.encoder, self.pixels, self.task.train_chunk_size)
            logits = self.task.head(features.unflatten(0, (self.batch.bags, self.batch.patches)))
        loss = self.task.loss(logits.float(), self.label)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
