"""One file of features, told by what is in it."""

from pathlib import Path

from e2e_abmilx.data.features.h5 import open_h5
from e2e_abmilx.data.features.slide_features import FeatureError, SlideFeatures
from e2e_abmilx.data.features.slideflow import SlideflowFeatures, index_of
from e2e_abmilx.data.features.stamp import KEYS as STAMP_KEYS
from e2e_abmilx.data.features.stamp import StampFeatures
from e2e_abmilx.data.features.tensors import TensorFeatures
from e2e_abmilx.data.features.trident import TridentFeatures

#: Endings of files that may hold features.
SUFFIXES = (".h5", ".pt")


def read_features(path: str | Path, *, slide_mpp: float | None = None) -> SlideFeatures:
    """Open the features of one slide, whichever tool wrote them.

    ``features`` in an ``.h5`` file are TRIDENT's or CLAM's, ``feats`` and ``patch_embeddings`` STAMP's. A ``.pt`` file is
    slideflow's where ``<slide>.index.npz`` is beside it; otherwise a tensor (CLAM's or the authors'), a numpy array
    (TRIDENT's), a list of tensors (eva's) or a dict with ``features`` and, maybe, ``coords``.

    Args:
        path: The file.
        slide_mpp: Level-0 µm per pixel of the slide: only STAMP's places, which are in µm, and slideflow's, which are
            centres, cannot do without.

    Raises:
        FeatureError: It cannot be read, holds none or something else; the message lists what is there.

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
            f"{path} holds {sorted(file)}, and none of features (TRIDENT, CLAM), {' and '.join(STAMP_KEYS)} (STAMP);"
            " give the folder of features, not that of coordinates"
        )
