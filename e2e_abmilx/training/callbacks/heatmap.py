"""Heatmaps of the attention to each slide's patches, or of their contributions."""

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from e2e_abmilx.data.slide_bags import WholeSlides
from e2e_abmilx.heads import BagHead, ContributionError, PoolingHead, leave_one_out, log_odds
from e2e_abmilx.heatmaps import Contribution, Kind, SlideAttention, check_drawable, write_heatmap
from e2e_abmilx.store import PatchStore
from e2e_abmilx.tasks import BagTask, ClassificationTask, MultiLabelTask, Prediction
from e2e_abmilx.training.callbacks.predicted_slides import predicted_slides


class AttentionHeatmap(Callback):
    """Write a folder ``heatmaps/<slide>`` into ``trainer.default_root_dir`` for each slide that is predicted.

    It holds ``overlay.png``, colours over the thumbnail; ``patches.geojson`` for QuPath; ``<kind>.ome.zarr``, a layer
    that covers the slide; and ``contact_sheet.png``, the patches with the highest and lowest values. See
    :func:`~e2e_abmilx.heatmaps.write_heatmap`.

    The contribution of a patch is how much the risk, the predicted value or the log-odds of a class falls when the patch
    is left out of the mean that its case is classified from. The class is the most probable one; of two classes, always
    the second. See
    :func:`~e2e_abmilx.heads.leave_one_out` for what contributions show and what they do not.

    Args:
        kind: What colours stand for: ``"attention"`` relative to uniform, its ``"rank"``, or the ``"contribution"``,
            which the GeoJSON then has too.
    """

    def __init__(self, kind: Kind = "attention") -> None:
        self.kind: Kind = kind
        self._cache = Path()
        self._sizes: dict[str, dict[str, int]] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look up the slides of each case, and refuse early what could not be drawn after hours of prediction.

        Raises:
            InputError: The bags are not made from patch stores.
            HeatmapError: A store does not record where its patches lie.
            ContributionError: Contributions are asked for, and the head has none.
        """
        head = getattr(pl_module, "head", None)
        if self.kind == "contribution" and isinstance(head, BagHead) and not isinstance(head, PoolingHead):
            raise ContributionError(head)
        bags = predicted_slides(trainer)
        self._cache, self._sizes = bags.cache, _patches_by_slide(bags)
        for slides in self._sizes.values():
            for slide in slides:
                check_drawable(PatchStore(self._cache / f"{slide}.zarr"))

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, *args: object, **kwargs: object
    ) -> None:
        """Draw the slides of a case when its last batch returns the prediction."""
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
    """Return the contribution of each patch of a case to the score of the case."""
    name, score = _explained_score(task, prediction.output.logits)
    attention = prediction.output.attention[0]
    return Contribution(name, leave_one_out(task.head, prediction.features, attention, score).numpy())


def _explained_score(task: BagTask, logits: Tensor) -> tuple[str, Callable[[Tensor], Tensor]]:
    """Return the name of a score and its function of logits: log-odds of a class, or the last score, such as the risk.

    Of two classes it is always the second, so that red has the same meaning on all slides; of more classes the most
    probable one. Log-odds, because a probability near 0 or 1 hardly changes whatever is left out.
    """
    if isinstance(task, ClassificationTask):
        shown = 1 if task.num_outputs == 2 else int(logits.argmax())
        return f"log-odds of {task.classes[shown]}", partial(log_odds, output=shown)
    if isinstance(task, MultiLabelTask):
        shown = int(logits.argmax())
        return f"log-odds of {task.classes[shown]}", lambda logits: logits[:, shown]
    return task.score_names()[-1], lambda logits: task.bag_scores(logits)[:, -1]


def _patches_by_slide(bags: WholeSlides) -> dict[str, dict[str, int]]:
    """Return the number of patches of each slide, by case and slide, in the order of the predictions."""
    sizes: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for part in bags.parts:
        sizes[bags.cases[part.case].id][part.slide] += part.stop - part.start
    return sizes
