"""``Model``: one or several trained tasks that predict slides together."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from e2e_abmilx.cohort import Case
from e2e_abmilx.data.bag import Bag, Part, collate
from e2e_abmilx.data.contract import InputContract
from e2e_abmilx.data.feature_bags import FeatureBags
from e2e_abmilx.data.slide_bags import WholeSlides
from e2e_abmilx.errors import InputError
from e2e_abmilx.heatmaps import Kind
from e2e_abmilx.models.inputs import bags_of, gather_slides
from e2e_abmilx.models.predictions import AttendedPatches, CasePrediction, mean_threshold
from e2e_abmilx.store.locations import Location
from e2e_abmilx.tasks import BagTask, Prediction
from e2e_abmilx.tasks.slide_heatmaps import check_kind, write_case_heatmaps

_HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class Model:
    """One or several trained tasks that predict slides; several predict as an ensemble, by the mean of their scores.

    Args:
        tasks: A task, or tasks that were trained for the same target and classes on the same kind of input, such as
            those of all folds of a cross-validation.
        device: Where to compute; by default a CUDA device if there is one.

    Attributes:
        tasks: The tasks, in evaluation mode.
        contracts: Input contract of each task.
        contract: That of the first.
        threshold: Threshold of the last score, mean over the tasks; None without one.

    Raises:
        InputError: There is no task, or one was never trained, or the device does not exist.
        ContractError: The tasks have different targets, classes or inputs.
    """

    def __init__(self, tasks: BagTask | Sequence[BagTask], *, device: str | None = None) -> None:
        self.device = _find_device(device)
        listed = [tasks] if isinstance(tasks, BagTask) else list(tasks)
        self.contracts = [task.contract for task in listed if task.contract is not None]
        if not listed or len(self.contracts) < len(listed):
            raise InputError(
                "a model needs tasks that were trained, or loaded from a checkpoint; fit or load each first"
            )
        self.tasks = [task.eval().to(self.device) for task in listed]
        self.contract: InputContract = self.contracts[0]
        for other in self.contracts[1:]:
            self.contract.check_target(other.target or "", other.classes)
            self.contract.check_input(other.input)
        self.threshold = mean_threshold(self.contracts)

    def predict(self, slide: str | Path | Sequence[str | Path], *, assume_mpp: float | None = None) -> CasePrediction:
        """Predict one case.

        A slide is cut into patches as the training slides were; the patches are kept in a temporary folder meanwhile.

        Args:
            slide: A slide, a patch store ``<slide>.zarr`` or, for a model of features, a file of features; several for
                a case with several slides.
            assume_mpp: Level-0 µm per pixel of a slide that states none.

        Raises:
            SlideError: A slide cannot be read, or has no tissue.
            ContractError: The patches or features do not fit the model.
        """
        paths = [Path(slide)] if isinstance(slide, str | Path) else [Path(path) for path in slide]
        with tempfile.TemporaryDirectory() as scratch:
            folder, names = gather_slides(paths, self.contract, Path(scratch), assume_mpp=assume_mpp)
            bags = bags_of([Case(names[0], tuple(names))], folder, self.contract)
            (prediction,) = self.predict_cases(bags)
        if isinstance(prediction, InputError):
            raise prediction
        return prediction

    def write_heatmaps(
        self, prediction: CasePrediction, cache: Location, folder: Path, kind: Kind = "attention"
    ) -> None:
        """Write a heatmap ``folder/<slide>`` of each slide of the case that was predicted last, by the first task.

        Args:
            prediction: The case.
            cache: Folder of the slides' stores.
            folder: Where to write.
            kind: Meaning of the colours, as :func:`~e2e_abmilx.heatmaps.write_heatmap`.

        Raises:
            HeatmapError: A store does not record where its patches lie.
            ContributionError: Contributions are asked for, and the head has none.
        """
        check_kind(self.tasks[0].head, kind)
        sizes = Counter(prediction.patches.slides.tolist())  # in the order of their first patches
        write_case_heatmaps(self.tasks[0], prediction.scores, sizes, cache, folder, kind)

    @torch.no_grad()
    def predict_cases(
        self, bags: WholeSlides | FeatureBags, *, threads: int = 2
    ) -> Iterator[CasePrediction | InputError]:
        """Yield the prediction for each case, or the reason why it cannot be read; one case is in memory at a time.

        Args:
            bags: The patches or features of the cases, in parts.
            threads: Threads that read and decode the next parts.
        """
        case = -1
        failed: InputError | None = None
        for part, read in zip(bags.parts, _read_ahead(bags, threads), strict=True):
            if part.case != case:
                case, failed, own = part.case, None, []
                for task in self.tasks:
                    task.on_predict_epoch_start()
            own.append(part)
            if failed is None and isinstance(read, InputError):
                failed = read
                yield failed
            if failed is None and isinstance(read, Bag):
                found = self._predict_part(read)
                if part.last:
                    yield self._combine(own, found)

    def _predict_part(self, bag: Bag) -> list[Prediction]:
        tensors = {name: value for name, value in bag._asdict().items() if isinstance(value, Tensor)}
        moved = bag._replace(**{name: value.to(self.device) for name, value in tensors.items()})  # type: ignore[arg-type]
        predictions = []
        for task in self.tasks:
            with _precision_of(task, self.device):
                prediction = task.predict_step(moved, 0)
            if prediction is not None:
                predictions.append(prediction)
        return predictions

    def _combine(self, parts: Sequence[Part], predictions: Sequence[Prediction]) -> CasePrediction:
        """Join the predictions of all tasks for a case, of which these are the parts."""
        task, first = self.tasks[0], predictions[0]
        patches = [member.predicted_patches for member in self.tasks]
        attention = torch.cat([one.output.attention[0] for one in patches if one is not None])
        assert patches[0] is not None  # every task has just predicted this case
        return CasePrediction(
            case=first.case,
            truth=dict(zip(task.truth_names(), task.truth(first), strict=True)),
            members=tuple(prediction.scores for prediction in predictions),
            threshold=self.threshold,
            patches=AttendedPatches(
                slides=np.repeat([part.slide for part in parts], [part.stop - part.start for part in parts]),
                coords=patches[0].coords.cpu().numpy(),
                scale=patches[0].scale.cpu().numpy(),
                attention=attention.cpu().numpy(),
            ),
        )


def _find_device(name: str | None) -> torch.device:
    """Return a device that computes, by default a CUDA device if there is one."""
    try:
        return torch.empty(0, device=name or ("cuda" if torch.cuda.is_available() else "cpu")).device
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        reason = str(error).partition("\n")[0]
        raise InputError(f"the device {name!r} cannot be used ({reason}); give cpu, cuda or cuda:<number>") from error


def _read_ahead(bags: WholeSlides | FeatureBags, threads: int) -> Iterator[Bag | InputError]:
    """Yield every part, or the error of reading it; the next parts are read meanwhile by threads."""

    def read(index: int) -> Bag | InputError:
        try:
            return collate([bags[index]])
        except InputError as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        waiting = [pool.submit(read, index) for index in range(min(threads, len(bags)))]
        for index in range(len(bags)):
            result = waiting.pop(0).result()
            if index + threads < len(bags):
                waiting.append(pool.submit(read, index + threads))
            yield result


@contextmanager
def _precision_of(task: BagTask, device: torch.device) -> Iterator[None]:
    """Compute in the precision of the task's training, so that its scores are the same as in its test."""
    assert task.contract is not None  # checked when the model was made
    dtype = _HALF.get(str(task.contract.precision))
    autocast = dtype is not None and (dtype != torch.float16 or device.type != "cpu")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(task.contract.model.get("matmul_precision", before))
    try:
        with torch.autocast(device.type, dtype, enabled=autocast):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
