"""Feature files, whose format is recognised by their content."""

from pathlib import Path

from e2e_abmilx.data.features.h5 import open_h5
from e2e_abmilx.data.features.slide_features import FeatureError, SlideFeatures
from e2e_abmilx.data.features.slideflow import SlideflowFeatures, index_of
from e2e_abmilx.data.features.stamp import KEYS as STAMP_KEYS
from e2e_abmilx.data.features.stamp import StampFeatures
from e2e_abmilx.data.features.tensors import TensorFeatures
from e2e_abmilx.data.features.trident import TridentFeatures

#: File endings of features.
SUFFIXES = (".h5", ".pt")


def read_features(path: str | Path, *, slide_mpp: float | None = None) -> SlideFeatures:
    """Open the features of one slide, in the format of any common tool.

    TRIDENT and CLAM write ``features`` into an ``.h5`` file, STAMP ``feats`` or ``patch_embeddings``. A ``.pt`` file is
    slideflow's if there is a file ``<slide>.index.npz``; otherwise it holds a tensor (CLAM, the authors), a numpy array
    (TRIDENT), a list of tensors (eva) or a dict with ``features`` and optionally ``coords``.

    Args:
        path: The file.
        slide_mpp: Level-0 µm per pixel of the slide, needed only for coordinates of STAMP and slideflow.

    Raises:
        FeatureError: The file cannot be read or does not hold features; the message lists its content.

    Example:
        >>> features = read_features("features_uni_v1/slide.h5")  # doctest: +SKIP
        >>> features.read().shape, features.coords().shape  # doctest: +SKIP
        (torch.Size([5231, 1024]), (5231, 2))
    """
    path = Path(path)
    if path.suffix.lower() == ".pt":
        return SlideflowFeatures(path, slide_mpp) if index_of(path).exists() else TensorFeatures(path)
    if path.suffix.lower() != ".h5":
        raise FeatureError(f"{path} ends in none of {', '.join(SUFFIXES)}; give a file of features")
    with open_h5(path) as file:
        if any(key in file for key in STAMP_KEYS):
            return StampFeatures(path, file, slide_mpp)
        if "features" in file:
            return TridentFeatures(path, file)
        raise FeatureError(
            f"{path} holds {sorted(file)}, but none of features (TRIDENT, CLAM), {' and '.join(STAMP_KEYS)} (STAMP);"
            " give the folder of features, not the folder of coordinates"
        )
