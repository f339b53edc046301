"""A digest of the features of a slide, by which a renamed copy of a file is recognised."""

import hashlib

import numpy as np

from e2e_abmilx.data.features.slide_features import SlideFeatures

_ROWS = 16  # patches that are read; their features differ between slides in every bit but by accident


def features_digest(features: SlideFeatures) -> str:
    """Return 16 hexadecimal digits that two files of features share if one is a copy of the other.

    The digest is the start of the sha256 of N, D and the features of up to 16 evenly spaced patches, first and last
    included, as little-endian float32 numbers. It depends neither on the name of the file nor on its format, nor on
    the coordinates; it changes if patches are left out or sorted, and if numbers are rounded, as to half precision.

    Raises:
        FeatureError: The file is damaged, or these features are NaN or infinite.
    """
    count = features.num_patches
    rows = np.linspace(0, count - 1, min(count, _ROWS)).round().astype(np.int64)
    digest = hashlib.sha256(np.array([count, features.num_features], "<i8").tobytes())
    for row in rows:  # read one by one: HDF5 files would read everything between two rows that lie close
        digest.update(features.read(row[None]).numpy().astype("<f4").tobytes())
    return digest.hexdigest()[:16]
