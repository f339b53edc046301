"""What the model attends to on each slide, or what that contributes, as files to look at."""

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from e2e_abmilx.data.loaders import Padded
from e2e_abmilx.data.slide_bags import WholeSlides
from e2e_abmilx.heads import BagHead, ContributionError, PoolingHead, leave_one_out, log_odds
from e2e_abmilx.heatmaps import (
    Contribution,
    HeatmapError,
    Kind,
    SlideAttention,
    check_drawable,
    write_heatmap,
)
from e2e_abmilx.store import PatchStore
from e2e_abmilx.tasks import BagTask, ClassificationTask, MultiLabelTask, Prediction


class AttentionHeatmap(Callback):
    """Write a folder ``heatmaps/<slide>`` into ``trainer.default_root_dir`` for each slide that is predicted.

    In it: ``overlay.png``, colours over the thumbnail; ``patches.geojson`` for QuPath; ``<kind>.ome.zarr``, a layer
    of the slide's extent; ``contact_sheet.png``, the patches at both ends. See
    :func:`~e2e_abmilx.heatmaps.write_heatmap`.

    Contributions are to the risk, or to the log-odds of the most probable class; of two that exclude each other, always
    of the second. They are how far it falls when a patch is left out of the mean that its case is classified from. See
    :func:`~e2e_abmilx.heads.leave_one_out` for what that says and what it does not.

    Args:
        kind: What colours stand for: ``"attention"`` relative to uniform, its ``"rank"``, or the ``"contribution"``,
            which is then in the GeoJSON too.
    """

    def __init__(self, kind: Kind = "attention") -> None:
        self.kind: Kind = kind
        self._cache = Path()
        self._sizes: dict[str, dict[str, int]] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the slides of each case, and refuse now what could not be drawn hours later.

        Raises:
            HeatmapError: Bags are not made from patch stores, or a store does not say where its patches lie.
            ContributionError: Contributions are asked for, and the head has none.
        """
        head = getattr(pl_module, "head", None)
        if self.kind == "contribution" and isinstance(head, BagHead) and not isinstance(head, PoolingHead):
            raise ContributionError(head)
        bags = _whole_slides(trainer)
        self._cache, self._sizes = bags.cache, _patches_by_slide(bags)
        for slides in self._sizes.values():
            for slide in slides:
                check_drawable(PatchStore(self._cache / f"{slide}.zarr"))

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the slides of a case once its last part has brought the prediction."""
        if not isinstance(outputs, Prediction) or not isinstance(pl_module, BagTask):
            return
        whole = _contribution(pl_module, outputs) if self.kind == "contribution" else None
        scores = outputs.scores
        name = "risk" if "risk" in scores else max(scores, key=lambda name: scores[name])
        start = 0
        for slide, size in self._sizes[outputs.case].items():
            own = slice(start, start + size)
            start += size
            attention = SlideAttention.from_weights(
                PatchStore(self._cache / f"{slide}.zarr"),
                outputs.coords[own].numpy(),
                outputs.scale[own].numpy(),
                outputs.output.attention[0, :, own].numpy(),
                bag_size=len(outputs.coords),
                contribution=Contribution(whole.score, whole.values[own]) if whole else None,
            )
            folder = Path(trainer.default_root_dir, "heatmaps", slide)
            write_heatmap(attention, folder, kind=self.kind, title=f"{slide}: {name} = {scores[name]:.3g}")


def _contribution(task: BagTask, prediction: Prediction) -> Contribution:
    """What each patch of a case adds to the case's score."""
    name, score = _explained(task, prediction.output.logits)
    values = leave_one_out(task.head, prediction.features, prediction.output.attention[0], score)
    return Contribution(name, values.numpy())


def _explained(task: BagTask, logits: Tensor) -> tuple[str, Callable[[Tensor], Tensor]]:
    """Name a score and how it follows from logits: log-odds of a class, or the last score, such as the risk.

    Of two classes it is always the second, so that red speaks for it on every slide; otherwise the most probable one.
    Log-odds, because a probability near 0 or 1 hardly moves whatever is left out.
    """
    if isinstance(task, ClassificationTask):
        shown = 1 if task.num_outputs == 2 else int(logits.argmax())
        return f"log-odds of {task.classes[shown]}", partial(log_odds, output=shown)
    if isinstance(task, MultiLabelTask):
        shown = int(logits.argmax())
        return f"log-odds of {task.classes[shown]}", lambda logits: logits[:, shown]
    return task.score_names()[-1], lambda logits: task.bag_scores(logits)[:, -1]


def _whole_slides(trainer: Trainer) -> WholeSlides:
    """The bags that are predicted."""
    data = getattr(trainer.predict_dataloaders, "dataset", None)
    bags = data.bags if isinstance(data, Padded) else data
    if not isinstance(bags, WholeSlides):
        raise HeatmapError(
            f"heatmaps need to know where patches lie, which {type(bags).__name__} does not say;"
            " predict with a SlideDataModule on a cache of patches"
        )
    return bags


def _patches_by_slide(bags: WholeSlides) -> dict[str, dict[str, int]]:
    """For each case its slides, in the order of their patches in a prediction, and how many each has."""
    sizes: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for part in bags.parts:
        sizes[bags.cases[part.case].id][part.slide] += part.stop - part.start
    return sizes
