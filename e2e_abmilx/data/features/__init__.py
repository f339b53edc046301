"""Features that were extracted beforehand: one file a slide, read whichever tool wrote it, written as TRIDENT does."""

from e2e_abmilx.data.features.folder import FeatureFolder
from e2e_abmilx.data.features.reading import read_features
from e2e_abmilx.data.features.slide_features import FeatureError, NoPlacesError, SlideFeatures
from e2e_abmilx.data.features.trident import Attributes, TridentWriter, describe_patches, read_attributes

__all__ = [
    "Attributes",
    "FeatureError",
    "FeatureFolder",
    "NoPlacesError",
    "SlideFeatures",
    "TridentWriter",
    "describe_patches",
    "read_attributes",
    "read_features",
]
