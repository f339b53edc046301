"""Heads as graphs: torch.compile, torch.export and ONNX, for bags of any size, with and without a mask."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from onnx_support import needs_onnx
from torch import Tensor

from e2e_abmilx.heads import ABMIL, ABMILX, BagHead, GatedABMIL, MaxPool, MeanPool

D, K = 24, 3
CASES = [  # the graph with a mask contains the one without
    pytest.param(partial(ABMILX, hidden_features=32, num_heads=4), False, id="ABMILX"),
    pytest.param(partial(ABMILX, hidden_features=32, num_heads=4), True, id="ABMILX masked"),
    pytest.param(partial(ABMILX, hidden_features=15, num_heads=5, ffn=True), True, id="ABMILX with odd heads"),
    pytest.param(ABMIL, True, id="ABMIL"),
    pytest.param(GatedABMIL, True, id="GatedABMIL"),
    pytest.param(MeanPool, True, id="MeanPool"),
    pytest.param(MaxPool, True, id="MaxPool"),
]
ONNX_CASES = [*CASES[:3], *(pytest.param(*case.values, id=case.id, marks=pytest.mark.slow) for case in CASES[3:])]


def inputs_of(num_bags: int, num_patches: int, *, masked: bool) -> tuple[Tensor, ...]:
    features = torch.randn(num_bags, num_patches, D)
    mask = torch.rand(num_bags, num_patches) < 0.7
    mask[:, -1] = True
    return (features, mask) if masked else (features,)


def dynamic_axes(inputs: tuple[Tensor, ...]) -> tuple[dict[int, torch.export.Dim], ...]:
    axes = {0: torch.export.Dim("bags"), 1: torch.export.Dim("patches")}
    return (axes,) * len(inputs)


@pytest.fixture
def head(request: pytest.FixtureRequest) -> BagHead:
    torch.manual_seed(0)
    make: Callable[[int, int], BagHead] = request.param
    return make(D, K).eval()


@pytest.mark.parametrize(("head", "masked"), CASES, indirect=["head"])
def test_one_graph_is_captured(head: BagHead, masked: bool) -> None:
    """The eager backend runs the captured graph unchanged, so this tests the capture only."""
    torch._dynamo.reset()
    compiled = torch.compile(head, fullgraph=True, dynamic=True, backend="eager")
    for num_patches in (5, 9):
        inputs = inputs_of(2, num_patches, masked=masked)
        torch.testing.assert_close(compiled(*inputs), head(*inputs))


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True])
def test_compiled_training_step_has_the_same_gradients(masked: bool) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    head = ABMILX(D, K, hidden_features=32, num_heads=4, dropout=0.0)
    compiled = torch.compile(head, fullgraph=True)
    inputs = inputs_of(2, 50, masked=masked)
    head(*inputs).square().sum().backward()
    expected = {name: parameter.grad for name, parameter in head.named_parameters()}
    head.zero_grad()
    compiled(*inputs).square().sum().backward()
    for name, parameter in head.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])


@pytest.mark.parametrize(("head", "masked"), CASES, indirect=["head"])
@needs_onnx
def test_exported_graph_accepts_bags_of_any_size(head: BagHead, masked: bool) -> None:
    example = inputs_of(2, 5, masked=masked)
    exported = torch.export.export(head, example, dynamic_shapes=dynamic_axes(example)).module()
    for num_bags, num_patches in ((1, 1), (3, 8), (2, 301)):
        inputs = inputs_of(num_bags, num_patches, masked=masked)
        torch.testing.assert_close(exported(*inputs), head(*inputs))


@pytest.mark.filterwarnings("ignore:# The axis name:UserWarning")  # two inputs share an axis on purpose
@pytest.mark.parametrize(("head", "masked"), ONNX_CASES, indirect=["head"])
@needs_onnx
def test_onnx_graph_accepts_bags_of_any_size(head: BagHead, masked: bool, tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package, reason=f"exporting to ONNX needs `pip install {package}`")
    onnxruntime = pytest.importorskip("onnxruntime", reason="running ONNX needs `pip install onnxruntime`")
    example = inputs_of(2, 5, masked=masked)
    program = torch.onnx.export(head, example, dynamo=True, dynamic_shapes=dynamic_axes(example), verbose=False)
    assert program is not None
    program.save(tmp_path / "head.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "head.onnx")
    for num_bags, num_patches in ((1, 1), (3, 57), (2, 1000)):
        inputs = inputs_of(num_bags, num_patches, masked=masked)
        feed = {node.name: value.numpy() for node, value in zip(session.get_inputs(), inputs, strict=True)}
        (logits,) = session.run(None, feed)
        torch.testing.assert_close(torch.from_numpy(logits), head(*inputs).detach(), atol=1e-5, rtol=1e-5)
