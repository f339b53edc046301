"""Ten training steps of three recipes, in float64, against a trace of the authors' own encoder, head and losses."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from e2e_abmilx.data.bag import Bag
from e2e_abmilx.encoders import ResNetEncoder
from e2e_abmilx.heads import ABMILX
from e2e_abmilx.heads.reference import head_weights
from e2e_abmilx.tasks import BagTask, ClassificationTask, SurvivalTask

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
#: Class and activation of each recipe; the activation cannot be seen in the weights.
RECIPES: dict[str, tuple[type[BagTask], str]] = {
    "panda": (ClassificationTask, "gelu"),
    "brca": (ClassificationTask, "gelu"),
    "surv": (SurvivalTask, "gelu"),
}


@pytest.fixture(scope="module")
def trace(shared: Path) -> dict[str, Any]:
    path = shared / "reference" / "training_trace.pt"
    if not path.is_file():
        pytest.skip("the training trace is not here")
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def _task(trace: dict[str, Any], kind: str) -> BagTask:
    task_class, activation = RECIPES[kind]
    recipe = trace[kind]
    head = ABMILX.from_reference(recipe["head_state"], activation=activation)  # type: ignore[arg-type]
    head.dropout.p = 0.0
    encoder = ResNetEncoder.from_reference(trace["encoder_state"], channel_order="rgb")
    optimizer = OPTIMIZERS[recipe["optimizer"]]
    return task_class(
        encoder,
        lambda *sizes: head,
        recipe["num_outputs"],
        optimizer=lambda params: optimizer(params, weight_decay=recipe["weight_decay"]),
    ).double()


def _bag(pixels: Tensor, labels: Tensor, censored: Tensor) -> Bag:
    mask = torch.ones(pixels.shape[:2], dtype=torch.bool)
    zeros = torch.zeros(mask.shape, dtype=torch.long)
    cases = tuple(map(str, range(len(labels))))
    return Bag(pixels, mask, zeros, torch.stack([zeros, zeros], -1), labels, labels.float(), 1 - censored, cases, True)


@pytest.mark.parametrize("kind", RECIPES)
def test_ten_steps_are_those_of_the_authors(trace: dict[str, Any], kind: str) -> None:
    recipe, task = trace[kind], _task(trace, kind)
    optimizer = task.configure_optimizers()
    losses = []
    for step, rate in enumerate(recipe["rates"]):
        bag = _bag(recipe["pixels"][step], recipe["labels"][step], recipe["censored"][step])
        task.train()
        loss = task.bag_loss(task(bag).logits, bag)
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        losses.append(loss.item())
    assert losses == pytest.approx(recipe["losses"], rel=1e-6)
    _compare_weights(task, recipe["head_state"], recipe["final_sum_and_norm"])
    task.eval()
    pixels = recipe["eval_pixels"]
    unknown = torch.zeros(len(pixels), dtype=torch.long)
    with torch.no_grad():
        logits = task(_bag(pixels, unknown, unknown)).logits
    torch.testing.assert_close(logits, recipe["eval_logits"], rtol=1e-6, atol=1e-6)


def _compare_weights(task: BagTask, initial: dict[str, Tensor], expected: dict[str, tuple[float, float]]) -> None:
    """Compare sum and norm of every tensor with those of the authors' model; ``initial`` are its head's first weights."""
    names = list(initial)
    numbered = {name: torch.full_like(value, number) for number, (name, value) in enumerate(initial.items())}
    own = task.head.state_dict()
    for name, number in head_weights(numbered).items():
        _compare(own.pop(name), expected[names[int(number.flatten()[0])]], name)
    assert not own
    for name, value in task.encoder.model.state_dict().items():
        if value.is_floating_point():
            _compare(value, expected[f"encoder.model.{name}"], name)


def _compare(value: Tensor, expected: tuple[float, float], name: str) -> None:
    found = value.double().sum().item(), value.double().norm().item()
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6 * max(1.0, expected[1])), name
