"""The attributes that a store imported without its slide records."""

import math
from collections.abc import Sequence

from e2e_abmilx.cache.jobs import StoreJob


def import_attributes(job: StoreJob, counts: Sequence[int], mpp: Sequence[float]) -> dict[str, object]:
    """Return the attributes of a store with so many patches to import, and so many µm/px, at each scale."""
    return {
        **job.origin(),
        "slide_mpp": None,
        "slide_mpp_source": "unknown",
        "patch_mpp": nan_to_none(mpp),
        "grid_patches": list(counts),
    }


def nan_to_none(mpp: Sequence[float]) -> list[float | None]:
    """Return µm/px as JSON can hold them: None where unknown."""
    return [None if math.isnan(scale) else scale for scale in mpp]
