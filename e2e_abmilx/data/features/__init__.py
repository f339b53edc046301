"""Extracted features, one file per slide: files of all common tools are read, and TRIDENT's format is written.

- ``slide_features``: features and coordinates of one slide
- ``h5``: HDF5 files in general
- ``trident``: TRIDENT and CLAM, read and written
- ``stamp``: STAMP
- ``tensors``: ``.pt`` files that hold only tensors or arrays
- ``slideflow``: slideflow
- ``reading``: recognition of the format of a file
- ``folder``: a folder of feature files
- ``digest``: recognises a renamed copy of a file
"""

from e2e_abmilx.data.features.digest import features_digest
from e2e_abmilx.data.features.folder import FeatureFolder
from e2e_abmilx.data.features.reading import read_features
from e2e_abmilx.data.features.slide_features import FeatureError, NoCoordsError, SlideFeatures
from e2e_abmilx.data.features.trident import Attributes, TridentWriter, describe_patches, read_attributes

__all__ = [
    "Attributes",
    "FeatureError",
    "FeatureFolder",
    "NoCoordsError",
    "SlideFeatures",
    "TridentWriter",
    "describe_patches",
    "features_digest",
    "read_attributes",
    "read_features",
]
