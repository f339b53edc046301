"""The slides that a trainer predicts."""

from lightning.pytorch import Trainer

from e2e_abmilx.data.loaders import Padded
from e2e_abmilx.data.slide_bags import WholeSlides
from e2e_abmilx.errors import InputError


def predicted_slides(trainer: Trainer) -> WholeSlides:
    """Return the slides that a trainer predicts, with all their patches.

    Raises:
        InputError: It predicts bags of another kind, which do not record where their patches lie.
    """
    data = getattr(trainer.predict_dataloaders, "dataset", None)
    bags = data.bags if isinstance(data, Padded) else data
    if not isinstance(bags, WholeSlides):
        raise InputError(
            f"{type(bags).__name__} does not record where patches lie, which heatmaps and features need; predict with a"
            " SlideDataModule on a cache of patches"
        )
    return bags
