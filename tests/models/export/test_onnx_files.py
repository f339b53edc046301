"""ONNX files against the task that they were written from."""

import gc
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx_support import needs_onnx
from small_tasks import MeanColour
from torch import Tensor, nn

from e2e_abmilx import heads
from e2e_abmilx.data.bag import Bag
from e2e_abmilx.encoders import FrozenEncoder, Precomputed, ResNetEncoder, TimmEncoder
from e2e_abmilx.encoders.augment import GroupedCrops, RandomCrops
from e2e_abmilx.errors import InputError
from e2e_abmilx.heads import ABMIL, ABMILX, BagHead, HeadOutput
from e2e_abmilx.models.export.onnx_files import ExactResize, OnnxError, write_onnx
from e2e_abmilx.tasks import ClassificationTask

D, K = 12, 3
small_abmilx = partial(ABMILX, hidden_features=16, num_heads=2)


def bag_of(patches: Tensor) -> Bag:
    """One bag of all patches or features."""
    zeros = torch.zeros(1, len(patches), dtype=torch.long)
    label, time = torch.zeros(1, dtype=torch.long), torch.zeros(1)
    mask = torch.ones(1, len(patches), dtype=torch.bool)
    return Bag(patches[None], mask, zeros, torch.stack([zeros, zeros], -1), label, time, label, ("a",), True)


def run(path: Path, values: Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path)
    (entry,) = session.get_inputs()
    assert [node.name for node in session.get_outputs()] == ["logits", "attention"]
    return session.run(None, {entry.name: values.numpy()})


def assert_same(path: Path, values: Tensor, output: HeadOutput) -> None:
    for found, expected in zip(run(path, values), output[:2], strict=True):
        np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        "ABMILX",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in [
                "ABMIL",
                "GatedABMIL",
                "CLAM",
                "MultiBranchCLAM",
                "DSMIL",
                "DTFD",
                "MeanPool",
                "MeanMLP",
                "MaxPool",
            ]
        ),
    ],
)
@needs_onnx
def test_every_pooling_head_takes_bags_of_any_size(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = ClassificationTask(Precomputed(D), getattr(heads, name), num_outputs=K)
    (path,) = write_onnx(task, tmp_path / "new" / "folder", patch_size=None)
    assert path == tmp_path / "new" / "folder" / "head.onnx"
    task.eval()
    for count in (1, 2, 7, 500):
        features = torch.randn(1, count, D)
        assert_same(path, features, task(bag_of(features[0])))


ENCODERS = [
    pytest.param(lambda: ResNetEncoder("resnet18", pretrained=False), lambda: RandomCrops(48), 64, id="ResNet"),
    *(
        pytest.param(lambda: FrozenEncoder(MeanColour()), augment, 16, id=name, marks=pytest.mark.slow)
        for name, augment in (
            ("whole patches", lambda: None),
            ("no resizing needed", lambda: RandomCrops(16)),
            ("enlarged", lambda: GroupedCrops(24)),
        )
    ),
    *(
        pytest.param(
            partial(TimmEncoder, name, pretrained=False), partial(RandomCrops, s), S, id=name, marks=pytest.mark.slow
        )
        for name, s, S in (("efficientnet_lite0", 48, 64), ("vit_tiny_patch16_224", 224, 256), ("resnet10t", 64, 64))
    ),
]


@pytest.mark.parametrize(("encoder", "augment", "side"), ENCODERS)
@needs_onnx
def test_the_encoders_graph_equals_the_task(encoder, augment, side: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = ClassificationTask(encoder(), small_abmilx, num_outputs=K, augment=augment())
    paths = write_onnx(task, tmp_path, patch_size=side)
    assert [path.name for path in paths] == ["head.onnx", "encoder_head.onnx"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder_head.onnx", "head.onnx"]
    task.eval()
    for count in (1, 3, 11):
        patches = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)
        assert_same(paths[1], patches, task(bag_of(patches)))
        features = task.encode(bag_of(patches)).detach()
        assert_same(paths[0], features, task.head.attend(features))


@pytest.mark.parametrize(("side", "size"), [(64, 48), (64, 96), (256, 224), (256, 128), (16, 15), (9, 4), (30, 7)])
@needs_onnx
def test_resizing_rounds_as_in_evaluation(side: int, size: int) -> None:
    """A plain bilinear resize in another order of additions differs in up to one pixel in a thousand."""
    patches = torch.randint(0, 256, (8, 3, side, side), dtype=torch.uint8)
    found, expected = ExactResize(side, size)(patches), RandomCrops(size).eval()(patches)
    assert (found != expected).float().mean() < 1e-5
    assert (found.int() - expected.int()).abs().max() <= 1
    plain = F.interpolate(patches.double(), (size, size), mode="bilinear", antialias=True)
    assert (found - plain).abs().max() < 0.51


@needs_onnx
def test_the_task_stays_as_it_was(tmp_path: Path) -> None:
    task = ClassificationTask(MeanColour(), ABMIL, num_outputs=K, augment=RandomCrops(8))
    task.train()
    task.double()
    weights = {name: value.clone() for name, value in task.state_dict().items()}
    before = torch.get_rng_state()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):  # the files are in float32 all the same
            write_onnx(task, tmp_path, patch_size=16)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in task.modules())
    assert all(torch.equal(value, weights[name]) for name, value in task.state_dict().items())
    assert task.head.classifier.weight.dtype == torch.float64
    assert all(weights.requires_grad for weights in task.parameters())


@pytest.mark.parametrize("name", ["TransMIL", "RRTMIL"])
@needs_onnx
def test_heads_that_count_their_patches_are_refused(name: str, tmp_path: Path) -> None:
    task = ClassificationTask(Precomputed(D), getattr(heads, name), num_outputs=K)
    with pytest.raises(OnnxError, match=f"{name} lays the patches .* in a square.*ABMILX, ABMIL"):
        write_onnx(task, tmp_path / "out", patch_size=None)
    assert not (tmp_path / "out").exists()


class Fixed(ABMIL):
    """A head whose graph holds for one number of patches only."""

    def attend(self, features: Tensor, mask: Tensor | None = None) -> HeadOutput:
        return super().attend(features * torch.tensor([1.0] * int(features.shape[1]))[:, None], mask)


class Drawing(ABMIL):
    """A head that draws numbers in evaluation, so that no two of its outputs agree."""

    def attend(self, features: Tensor, mask: Tensor | None = None) -> HeadOutput:
        return super().attend(features + torch.randn_like(features), mask)


class Branching(ABMIL):
    """A head that looks at the values of its features, which no graph can."""

    def attend(self, features: Tensor, mask: Tensor | None = None) -> HeadOutput:
        return super().attend(features * 2 if features.sum() > 0 else features, mask)


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (Fixed, r"head\.onnx: the graph of Fixed takes 37 patches, not any number"),
        (Drawing, r"head\.onnx: for a bag of 1, onnxruntime's logits of Drawing differ by"),
        (Branching, r"head\.onnx: Branching cannot be captured"),
    ],
)
@needs_onnx
def test_heads_whose_graph_is_wrong_leave_no_file(head: type[BagHead], reason: str, tmp_path: Path) -> None:
    (tmp_path / "kept.json").write_text("{}")
    task = ClassificationTask(Precomputed(D), head, num_outputs=K)
    with pytest.raises(OnnxError, match=reason) as caught:
        write_onnx(task, tmp_path, patch_size=None)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.json"]


@needs_onnx
def test_an_encoder_whose_graph_is_wrong_leaves_the_head(tmp_path: Path) -> None:
    class Shuffled(MeanColour):
        def forward(self, patches: Tensor) -> Tensor:
            return super().forward(patches + torch.randn_like(patches))

    task = ClassificationTask(Shuffled(), ABMIL, num_outputs=K)
    with pytest.raises(OnnxError, match=r"encoder_head\.onnx: .*Shuffled and ABMIL differ"):
        write_onnx(task, tmp_path, patch_size=16)
    assert [path.name for path in tmp_path.iterdir()] == ["head.onnx"]


@needs_onnx
def test_the_patch_size_must_be_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="patch_size is None"):
        write_onnx(ClassificationTask(MeanColour(), small_abmilx, num_outputs=K), tmp_path, patch_size=None)
    assert list(tmp_path.iterdir()) == []


@needs_onnx
def test_weights_beyond_2_gib_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    task = ClassificationTask(MeanColour(), small_abmilx, num_outputs=K)
    task.encoder.large = nn.Parameter(torch.zeros(1).expand(2**29))  # 2 GiB that take no memory
    with pytest.raises(OnnxError, match=r"2\.0 GiB of weights"):
        write_onnx(task, tmp_path, patch_size=16)
    assert list(tmp_path.iterdir()) == []


def test_an_old_pytorch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.9.1+cu128")
    with pytest.raises(InputError, match=r"PyTorch 2\.9\.1.* needs 2\.11"):
        write_onnx(ClassificationTask(Precomputed(D), ABMIL, num_outputs=K), tmp_path, patch_size=None)
    assert not any(tmp_path.iterdir())


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as if it were not installed
    with pytest.raises(InputError, match=r'needs onnxscript, .*pip install "e2e-abmilx\[export\]"'):
        write_onnx(ClassificationTask(Precomputed(D), ABMIL, num_outputs=K), tmp_path, patch_size=None)


@needs_onnx
def test_configs_still_know_the_head_by_its_name_after_an_export(tmp_path: Path) -> None:
    task = ClassificationTask(MeanColour(), lambda *sizes: ABMIL(*sizes, hidden_features=4), 2)
    gc.disable()  # whether the collector happens to run in between must not decide
    try:
        write_onnx(task, tmp_path, patch_size=8)
        assert "ABMIL" not in [found.__name__ for found in ABMIL.__subclasses__()]
    finally:
        gc.enable()
