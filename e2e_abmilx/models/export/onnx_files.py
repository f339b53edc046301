"""A model as ONNX files: graphs that run without this package, for a bag of any number of patches.

Letters: N patches in a bag, S side of the stored patches, s side that the encoder receives, D features, H heads, K
outputs.
"""

import copy
import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e2e_abmilx.encoders import Precomputed
from e2e_abmilx.encoders.augment import RandomCrops
from e2e_abmilx.errors import InputError
from e2e_abmilx.heads.base import BagHead, SequenceHead
from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.tasks import BagTask

_Module = TypeVar("_Module", bound=nn.Module)
_TORCH = (2, 11)  # 2.6 to 2.9 capture no graph for bags of any size; 2.10 was not tried
_TOLERANCE = 1e-4
_LARGEST_BYTES = 2**31 - 2**24  # a file holds 2 GiB; a part of that is the graph itself
_CURE = (
    "export it without ONNX, because load_model runs any model from its weights; ABMILX, ABMIL, GatedABMIL, CLAM,"
    " MultiBranchCLAM, DSMIL, DTFD, MeanPool, MeanMLP and MaxPool can be written as ONNX"
)


class OnnxError(InputError):
    """A model cannot be written as ONNX; everything else about it can be exported."""


def write_onnx(task: BagTask, folder: Path, *, patch_size: int | None) -> list[Path]:
    """Write a task's networks as ONNX, in evaluation mode and in float32, and check them with onnxruntime.

    - ``head.onnx``: ``features``, float32 ``(1, N, D)`` → ``logits``, ``(1, K)``, and ``attention``, ``(1, H, N)``.
    - ``encoder_head.onnx``, unless the encoder is ``Precomputed``: ``patches``, uint8 RGB ``(N, 3, S, S)``, the
      pixels of a store with channels first → the same outputs. Resizing and normalisation are in the graph.

    N may differ from bag to bag; S is fixed. A runtime computes a whole bag at once, so its memory grows with N: by
    about 13 MiB a patch of 256 px for a ResNet-18 (onnxruntime on a CPU).

    Each file is compared with the task on random bags of two sizes, one of them a single patch, and kept only if all
    outputs differ by at most 1e-4 (of the largest output, where that exceeds 1). Copies of the task's modules are
    exported, on the CPU; the task is not changed.

    Args:
        task: The task.
        folder: Folder of the files; it is made if missing.
        patch_size: S, in pixels; None if the encoder is ``Precomputed``.

    Returns:
        The files.

    Raises:
        OnnxError: The model cannot be written for bags of any size, or a file gives other results than the task.
        InputError: A package is not installed or PyTorch is older than 2.11, or the patch size is missing.
    """
    _check_packages()
    _check_head(task.head)
    try:
        return _write_graphs(task, folder, patch_size)
    finally:
        gc.collect()  # the export derives classes from the head's under its name, which configs could not tell apart


def _write_graphs(task: BagTask, folder: Path, patch_size: int | None) -> list[Path]:
    head = HeadGraph(_plain_copy(task.head))
    features = [torch.randn(1, count, task.head.in_features, generator=_generator()) for count in (1, 37)]
    graphs: list[tuple[Path, HeadGraph | EncoderHeadGraph, list[Tensor]]] = [(folder / "head.onnx", head, features)]
    if not isinstance(task.encoder, Precomputed):
        _check_bytes(task)
        whole = EncoderHeadGraph(task, _known_patch_size(patch_size))
        patches = [_random_patches(count, whole.patch_size) for count in (1, 5)]
        graphs.append((folder / "encoder_head.onnx", whole, patches))
    for path, graph, bags in graphs:
        _write_graph(path, graph, bags)
    return [path for path, _, _ in graphs]


class HeadGraph(nn.Module):
    """A head for one bag: features ``(1, N, D)`` → logits ``(1, K)``, attention ``(1, H, N)``."""

    input_name, patch_axis = "features", 1

    def __init__(self, head: BagHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and attention."""
        output = self.head.attend(features)
        return output.logits, output.attention


class EncoderHeadGraph(nn.Module):
    """Encoder and head for one bag, as ``BagTask.forward`` evaluates it.

    Args:
        task: The task, whose modules are copied.
        patch_size: S.
    """

    input_name, patch_axis = "patches", 0

    def __init__(self, task: BagTask, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.head = _plain_copy(task.head)
        self.augment, self.normalize, self.encoder = map(_plain_copy, (task.augment, task.normalize, task.encoder))
        self.resize = _exportable(self.augment, patch_size)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and attention of patches ``(N, 3, S, S)``."""
        resized = self.resize(patches) if torch.compiler.is_compiling() else self.augment(patches)
        output = self.head.attend(self.encoder(self.normalize(resized)).unsqueeze(0))
        return output.logits, output.attention


class ExactResize(nn.Module):
    """The resizing of ``RandomCrops`` in evaluation, in operations that every runtime computes alike.

    Rounding to grey levels magnifies the last bit: where 64 px become 96, a sixth of the values lie halfway between two
    levels, and runtimes that add in another order, or with coarser weights as ONNX's ``Resize``, round them
    differently. So this repeats torch's order, columns before rows, one tap after the other, with its fused multiply-add: a product
    and a sum in float64, rounded to float32.

    Args:
        patch_size: S.
        size: s.
    """

    weights: Tensor
    places: Tensor

    def __init__(self, patch_size: int, size: int) -> None:
        super().__init__()
        unit = torch.eye(patch_size)[None, None]
        matrix = F.interpolate(unit, (size, patch_size), mode="bilinear", antialias=True)[0, 0]  # (s, S)
        first = (matrix != 0).int().argmax(dim=1, keepdim=True)
        places = first + torch.arange(int((matrix != 0).sum(dim=1).max()))
        weights = matrix.gather(1, places.clamp(max=patch_size - 1)).where(places < patch_size, 0)
        self.register_buffer("weights", weights.T.double().contiguous())  # (taps, s)
        self.register_buffer("places", places.clamp(max=patch_size - 1).T.contiguous())

    def forward(self, patches: Tensor) -> Tensor:
        """Resize patches: uint8 ``(N, 3, S, S)`` → uint8 ``(N, 3, s, s)``."""
        columns = self._resize_last(patches.float())
        rows = self._resize_last(columns.transpose(2, 3))
        return rows.transpose(2, 3).round().to(torch.uint8)

    def _resize_last(self, pixels: Tensor) -> Tensor:
        total = pixels.new_zeros(())
        for places, weights in zip(self.places, self.weights, strict=True):
            total = (pixels[..., places].double() * weights + total.double()).float()
        return total


def _exportable(augment: nn.Module, patch_size: int) -> nn.Module:
    """Return a module that a graph can hold, and that does what ``augment`` does in evaluation."""
    if not isinstance(augment, RandomCrops) or type(augment).forward is not RandomCrops.forward:
        return augment
    return nn.Identity() if augment.size == patch_size else ExactResize(patch_size, augment.size)


def _plain_copy(module: _Module) -> _Module:
    """Return a copy in evaluation mode and in float32, on the CPU."""
    return copy.deepcopy(module).cpu().float().eval()


def _write_graph(path: Path, graph: HeadGraph | EncoderHeadGraph, bags: Sequence[Tensor]) -> None:
    """Write one graph, captured with the last bag; keep the file only if it is right for all bags."""
    graph.eval()
    with atomic_write(path) as partial, _exact_float32():
        try:
            program = torch.onnx.export(
                graph,
                (bags[-1],),
                dynamo=True,
                dynamic_shapes=({graph.patch_axis: torch.export.Dim("patches")},),
                input_names=[graph.input_name],
                output_names=["logits", "attention"],
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().partition("\n")[0]
            raise OnnxError(
                f"{path.name}: {_names(graph)} cannot be captured as a graph ({reason}); {_CURE}"
            ) from error
        assert program is not None
        program.save(partial, external_data=False)
        _check_parity(partial, graph, bags, path.name)


@contextmanager
def _exact_float32() -> Iterator[None]:
    """Compute without gradients and in full float32, whatever precision the caller has set."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast("cpu", enabled=False), torch.no_grad():
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _check_parity(file: Path, graph: HeadGraph | EncoderHeadGraph, bags: Sequence[Tensor], name: str) -> None:
    """Refuse a file that has a fixed number of patches, or other outputs than the graph that it was made from."""
    session = import_module("onnxruntime").InferenceSession(file, providers=["CPUExecutionProvider"])
    count = session.get_inputs()[0].shape[graph.patch_axis]
    if isinstance(count, int):
        raise OnnxError(f"{name}: the graph of {_names(graph)} takes {count} patches, not any number; {_CURE}")
    for bag in bags:
        outputs = session.run(["logits", "attention"], {graph.input_name: bag.numpy()})
        for title, found, expected in zip(("logits", "attention"), outputs, graph(bag), strict=True):
            difference = float((torch.from_numpy(found) - expected).abs().max())
            if not difference <= _TOLERANCE * max(1.0, float(expected.abs().max())):  # NaN is refused too
                raise OnnxError(
                    f"{name}: for a bag of {bag.shape[graph.patch_axis]}, onnxruntime's {title} of {_names(graph)}"
                    f" differ by {difference:.2g}, more than {_TOLERANCE:g}; {_CURE}"
                )


def _check_packages() -> None:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise InputError(
            f'writing ONNX needs {", ".join(missing)}, which cannot be found; `pip install "e2e-abmilx[export]"`'
        )
    if tuple(map(int, torch.__version__.split(".")[:2])) < _TORCH:
        raise InputError(
            f"this is PyTorch {torch.__version__}, and writing ONNX needs {'.'.join(map(str, _TORCH))} or later, the first"
            ' that is known to capture graphs for bags of any size; `pip install "e2e-abmilx[export]"`, or export without ONNX'
        )


def _check_head(head: BagHead) -> None:
    if isinstance(head, SequenceHead):
        raise OnnxError(
            f"{type(head).__name__} lays the patches of a bag out in a square, whose size depends on their number; a"
            f" graph for bags of any size cannot express that. {_CURE[0].upper()}{_CURE[1:]}"
        )


def _check_bytes(task: BagTask) -> None:
    size = sum(4 * weights.numel() for part in (task.encoder, task.head) for weights in part.parameters())
    if size > _LARGEST_BYTES:
        raise OnnxError(
            f"{type(task.encoder).__name__} and {type(task.head).__name__} have {size / 2**30:.1f} GiB of weights in"
            f" float32, and an ONNX file holds at most 2 GiB; {_CURE}"
        )


def _known_patch_size(patch_size: int | None) -> int:
    if patch_size is None:
        raise InputError(
            "patch_size is None; the graph of an encoder needs the side of its patches: state it in pixels"
        )
    return patch_size


def _names(graph: HeadGraph | EncoderHeadGraph) -> str:
    head = type(graph.head).__name__
    return f"{type(graph.encoder).__name__} and {head}" if isinstance(graph, EncoderHeadGraph) else head


def _random_patches(count: int, side: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=_generator())


def _generator() -> torch.Generator:
    """Return a generator of its own, so that exporting draws nothing from the global one."""
    return torch.Generator().manual_seed(0)
