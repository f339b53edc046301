"""What every imported store records."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from e2e_abmilx.cache.build import StoreJob
from e2e_abmilx.cache.tiling import parse_scales
from e2e_abmilx.errors import SourceError
from e2e_abmilx.slides.slide_files import SlideFile

logger = logging.getLogger(__name__)


class NamedSource(NamedTuple):
    """A slide that is no slide file: its name, and where its patches are."""

    name: str
    path: Path


def import_facts(job: StoreJob, counts: Sequence[int], mpp: Sequence[float]) -> dict[str, object]:
    """What every imported store records."""
    return {
        **job.origin(),
        "slide_mpp": None,
        "slide_mpp_source": "unknown",
        "patch_mpp": known_scales(mpp),
        "grid_patches": list(counts),
    }


def known_scales(mpp: Sequence[float]) -> list[float | None]:
    """µm/px as JSON has them: None where unknown."""
    return [None if math.isnan(scale) else scale for scale in mpp]


def parse_mpp(
    mpp: Sequence[float | str] | None, slides: Sequence[SlideFile] = (), assume_mpp: float | None = None
) -> tuple[float, ...]:
    """µm/px of the scales asked for, finest first; none where they were not stated."""
    scales = parse_scales(mpp or (), slides, assume_mpp)
    if not all(0 < scale < math.inf for scale in scales) or len(set(scales)) < len(scales):
        raise SourceError(f"mpp {list(scales)}: give different positive µm/px, for example [0.5, 1.0]")
    return scales
