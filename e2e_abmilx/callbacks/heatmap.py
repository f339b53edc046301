"""What the model attends to on each slide, as files to look at."""

from collections import defaultdict
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from e2e_abmilx.bags import WholeSlides
from e2e_abmilx.heatmaps import HeatmapError, Kind, check_drawable, write_heatmap
from e2e_abmilx.loaders import Padded
from e2e_abmilx.store import PatchStore
from e2e_abmilx.tasks import BagTask, Prediction


class AttentionHeatmap(Callback):
    """Write a folder ``heatmaps/<slide>`` into ``trainer.default_root_dir`` for each slide that is predicted.

    In it: ``overlay.png``, attention over the thumbnail; ``patches.geojson`` for QuPath; ``attention.ome.zarr``,
    a layer of the slide's extent; ``contact_sheet.png``, the patches looked at most and least. See
    :func:`~e2e_abmilx.heatmaps.write_heatmap`.

    Args:
        kind: What colours stand for: ``"attention"`` relative to uniform, or its ``"rank"``.
    """

    def __init__(self, kind: Kind = "attention") -> None:
        self.kind: Kind = kind
        self._cache = Path()
        self._sizes: dict[str, dict[str, int]] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the slides of each case, and refuse now what could not be drawn hours later.

        Raises:
            HeatmapError: Bags are not made from patch stores, or a store does not say where its patches lie.
        """
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
        scores = outputs.scores
        name = "risk" if "risk" in scores else max(scores, key=lambda name: scores[name])
        start = 0
        for slide, size in self._sizes[outputs.case].items():
            own = slice(start, start + size)
            start += size
            write_heatmap(
                PatchStore(self._cache / f"{slide}.zarr"),
                outputs.coords[own].numpy(),
                outputs.scale[own].numpy(),
                outputs.output.attention[0, :, own].numpy(),
                Path(trainer.default_root_dir, "heatmaps", slide),
                bag_size=len(outputs.coords),
                kind=self.kind,
                title=f"{slide}: {name} = {scores[name]:.3g}",
            )


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
