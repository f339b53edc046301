"""Heatmaps of the attention to each slide's patches, or of their contributions."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from e2e_abmilx.heatmaps import Kind, check_drawable
from e2e_abmilx.store import PatchStore
from e2e_abmilx.store.locations import Location, store_path
from e2e_abmilx.tasks import BagTask, Prediction
from e2e_abmilx.tasks.slide_heatmaps import check_kind, write_case_heatmaps
from e2e_abmilx.training.callbacks.predicted_slides import patches_by_slide, predicted_slides


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
        self._cache: Location = Path()
        self._sizes: dict[str, dict[str, int]] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look up the slides of each case, and refuse early what could not be drawn after hours of prediction.

        Raises:
            InputError: The bags are not made from patch stores.
            HeatmapError: A store does not record where its patches lie.
            ContributionError: Contributions are asked for, and the head has none.
        """
        check_kind(getattr(pl_module, "head", None), self.kind)
        bags = predicted_slides(trainer)
        self._cache, self._sizes = bags.cache, patches_by_slide(bags)
        for slides in self._sizes.values():
            for slide in slides:
                check_drawable(PatchStore(store_path(self._cache, slide)))

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, *args: object, **kwargs: object
    ) -> None:
        """Draw the slides of a case when its last batch returns the prediction."""
        if isinstance(outputs, Prediction) and isinstance(pl_module, BagTask):
            folder = Path(trainer.default_root_dir, "heatmaps")
            sizes = self._sizes[outputs.case]
            write_case_heatmaps(pl_module, outputs.scores, sizes, self._cache, folder, self.kind)
