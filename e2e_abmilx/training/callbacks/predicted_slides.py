"""The slides that a trainer predicts or tests."""

from collections import defaultdict

from lightning.pytorch import Trainer

from e2e_abmilx.data.loaders import Padded
from e2e_abmilx.data.slide_bags import WholeSlides
from e2e_abmilx.errors import InputError


def predicted_slides(trainer: Trainer) -> WholeSlides:
    """Return the slides that a trainer predicts, as :func:`slides_of`."""
    return slides_of(trainer.predict_dataloaders)


def slides_of(loader: object) -> WholeSlides:
    """Return the slides of a loader of whole cases, with all their patches.

    Raises:
        InputError: It loads bags of another kind, which do not record where their patches lie.
    """
    data = getattr(loader, "dataset", None)
    bags = data.bags if isinstance(data, Padded) else data
    if not isinstance(bags, WholeSlides):
        raise InputError(
            f"{type(bags).__name__} does not record where patches lie, which heatmaps, features and their truth need;"
            " use a SlideDataModule on a cache of patches"
        )
    return bags


def patches_by_slide(bags: WholeSlides) -> dict[str, dict[str, int]]:
    """Return the number of patches of each slide, by case and slide, in the order of the predictions."""
    sizes: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for part in bags.parts:
        sizes[bags.cases[part.case].id][part.slide] += part.stop - part.start
    return sizes
