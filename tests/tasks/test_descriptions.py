import importlib.metadata
import json

import pytest
import torch
from lightning.pytorch import LightningModule
from small_tasks import MeanColour, small_head
from torch import nn
from torchvision.transforms import v2

from e2e_abmilx import __version__
from e2e_abmilx.data.contract import ContractError
from e2e_abmilx.encoders import IMAGENET_MEAN, IMAGENET_STD, Precomputed
from e2e_abmilx.encoders.augment import RandomCrops
from e2e_abmilx.heads import ABMIL
from e2e_abmilx.tasks import ClassificationTask
from e2e_abmilx.tasks.descriptions import check_same_pixels, describe_model, versions


class _Dark(MeanColour):
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)


def _task(**how: object) -> ClassificationTask:
    return ClassificationTask(**{"encoder": MeanColour(), "head": small_head, "num_outputs": 2, **how})  # type: ignore[arg-type]


def test_a_task_built_in_python() -> None:
    task = _task(augment=RandomCrops(48))
    words = describe_model(task)
    assert words["task"] == "ClassificationTask"
    assert words["encoder"] == "MeanColour()"
    assert words["augment"].startswith("RandomCrops(size=48, ")
    assert words["head"].startswith("ABMILX(")
    assert words["parameters"] == {
        "encoder": 3, "augment": 0, "head": sum(weights.numel() for weights in task.head.parameters()),
    }  # fmt: skip
    assert words["matmul_precision"] == torch.get_float32_matmul_precision()


def test_what_is_done_to_pixels() -> None:
    usual, dark = describe_model(_task()), describe_model(_task(encoder=_Dark(), augment=RandomCrops(48)))
    assert (usual["mean"], usual["std"]) == (pytest.approx(IMAGENET_MEAN), pytest.approx(IMAGENET_STD))
    assert (dark["mean"], dark["std"]) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert (usual["input_size"], dark["input_size"]) == (None, 48)


def test_a_task_built_from_a_config_is_described_by_its_settings() -> None:
    task = _task(encoder=Precomputed(4), head=ABMIL)
    weights = "/home/someone/secret/uni.bin"
    task.hparams["encoder"] = {"class_path": "e2e_abmilx.X", "init_args": {"name": "uni", "weights": weights}}
    task.hparams["head"] = {"class_path": "e2e_abmilx.ABMIL"}
    words = describe_model(task)
    assert words["encoder"] == "Precomputed(name=uni, weights=uni.bin)"  # without folders of this machine
    assert words["head"] == "ABMIL()"
    task.hparams["head"]["init_args"] = None
    assert describe_model(task)["head"] == "ABMIL()"
    task.hparams["head"]["init_args"] = {"weights": [1, 2]}  # such as weights of classes
    assert describe_model(task)["head"] == "ABMIL(weights=[1, 2])"
    assert weights in str(task.hparams)  # the settings themselves are unchanged


def test_weights_in_an_encoder_within_an_encoder_are_named_without_folders() -> None:
    task = _task()
    inner = {"class_path": "TimmEncoder", "init_args": {"name": "uni", "weights": "/home/someone/uni.bin"}}
    task.hparams["encoder"] = {"class_path": "Fixed", "init_args": {"encoder": inner}}
    words = describe_model(task)["encoder"]
    assert "someone" not in words
    assert "uni.bin" in words


def test_tasks_without_parts_are_described() -> None:
    words = describe_model(LightningModule())
    assert (words["input_size"], words["mean"], words["parameters"]) == (None, [], {})


@pytest.mark.parametrize("augment", [v2.CenterCrop(32), v2.CenterCrop((32, 24)), v2.RandomCrop(32), nn.Identity()])
def test_descriptions_are_kept_by_checkpoints_and_json(augment: nn.Module) -> None:
    words = describe_model(_task(augment=augment))
    kept = json.loads(json.dumps(words))
    assert kept == words
    check_same_pixels(kept, describe_model(_task(augment=augment)))


class _Odd(nn.Module):
    """A crop of the user's own, which has a method called size."""

    def size(self) -> int:
        return 7


def test_a_size_that_is_no_number_is_unknown() -> None:
    assert describe_model(_task(augment=_Odd()))["input_size"] is None


def test_other_pixels_are_refused() -> None:
    trained = describe_model(_task(augment=RandomCrops(48)))
    check_same_pixels(trained, describe_model(_task(augment=RandomCrops(48, flips=False), num_outputs=7)))
    for present, reason in (
        (_task(augment=RandomCrops(64)), "the checkpoint's crop is 48, and that of this task 64; build the task with"),
        (_task(), "crop is 48, and that of this task None"),
        (_task(augment=RandomCrops(48), encoder=_Dark()), r"mean of the normalisation is \[0\.485, .* \[0\.1, "),
    ):
        with pytest.raises(ContractError, match=reason):
            check_same_pixels(trained, describe_model(present))
    stretched = {**trained, "std": [0.1, 0.1, 0.1]}
    with pytest.raises(ContractError, match=r"std of the normalisation is \[0\.1, 0\.1, 0\.1\]"):
        check_same_pixels(stretched, trained)


def test_a_task_in_bfloat16_has_the_same_pixels() -> None:
    """A trainer of the precision bf16-true rounds mean and std, as it does the weights; a side is never rounded."""
    trained = describe_model(_task())
    present = describe_model(_task().bfloat16())
    assert present["mean"] != trained["mean"]
    check_same_pixels(trained, present)
    check_same_pixels(present, trained)
    with pytest.raises(ContractError, match="crop"):
        check_same_pixels({**trained, "input_size": [512, 512]}, {**trained, "input_size": [513, 512]})


def test_descriptions_of_earlier_releases_are_not_compared() -> None:
    check_same_pixels({}, describe_model(_task()))


def test_versions() -> None:
    found = versions()
    assert found["e2e_abmilx"] == __version__
    assert found["torch"] == importlib.metadata.version("torch")
    assert json.loads(json.dumps(found)) == found
