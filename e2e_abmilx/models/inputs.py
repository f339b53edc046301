"""Slides, stores and features, made into the bags that a model takes."""

import os
from collections.abc import Sequence
from pathlib import Path

from e2e_abmilx.cache.build import SlideJob
from e2e_abmilx.cache.jobs import make_store
from e2e_abmilx.cache.tiling import Tiling
from e2e_abmilx.cohort import Case
from e2e_abmilx.data.bag import Target
from e2e_abmilx.data.contract import ContractError, InputContract
from e2e_abmilx.data.feature_bags import FeatureBags, check_features
from e2e_abmilx.data.features import FeatureFolder
from e2e_abmilx.data.inputs import FeatureInput, PatchInput
from e2e_abmilx.data.slide_bags import WholeSlides, check_stores
from e2e_abmilx.errors import InputError, SlideError
from e2e_abmilx.slides.slide_files import SlideFile, find_slides
from e2e_abmilx.store import CohortIndex, PatchStore
from e2e_abmilx.store.codec import JPEG_QUALITY
from e2e_abmilx.store.locations import Location, as_location, store_path

_MIN_TISSUE = 0.5
_FEATURES = (".h5", ".pt")


def tiling_for(contract: InputContract, assume_mpp: float | None = None) -> Tiling:
    """Return the settings that cut a slide as the model's training slides were cut, at the scales that it evaluates.

    Raises:
        ContractError: The model takes features, or does not know the size or resolution of its patches.
    """
    given = contract.input
    if isinstance(given, FeatureInput):
        raise ContractError(
            f"the model takes {given}, not slides; extract them, and give the folder or file of features"
        )
    scales = () if given is None else tuple(mpp for mpp in given.evaluated_mpp if mpp is not None)
    if given is None or len(scales) < len(given.evaluated_mpp):
        raise ContractError(
            "the model does not know the µm/px and the size of its patches, so slides cannot be cut for it; cache them as"
            " its training slides were cached, and give the stores"
        )
    overlap = 0.0 if given.overlap is None else given.overlap
    min_tissue = _MIN_TISSUE if given.min_tissue is None else given.min_tissue
    return Tiling(scales, given.patch_size, overlap, min_tissue, given.quality or JPEG_QUALITY, assume_mpp)


def gather_slides(
    paths: Sequence[Path], contract: InputContract, scratch: Path, *, assume_mpp: float | None
) -> tuple[Path, list[str]]:
    """Return the folder of the stores or features of some slides, and their names; slides are cut into ``scratch``.

    Raises:
        SlideError: A slide cannot be read, or has no tissue.
        InputError: The paths are in different folders, or of different kinds, or do not name the slides of one case.
    """
    if not paths:
        raise InputError("no slide is given; name at least one slide, store or file of features")
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise InputError(f"{twice} is given twice; name each slide of a case once")
    kinds = {path.suffix.lower() if path.suffix.lower() in (".zarr", *_FEATURES) else "slide" for path in paths}
    if kinds == {"slide"}:
        tiling = tiling_for(contract, assume_mpp)
        slides = find_slides(paths[0] if len(paths) == 1 else paths)
        if len(slides) > len(paths):
            raise InputError(
                f"{paths[0]} holds {len(slides)} slides, and a prediction is of one case; name the slides of the case, or"
                " predict all by the command predict"
            )
        for slide in slides:
            _cut(slide, scratch, tiling)
        return scratch, [slide.name for slide in slides]
    if kinds & set(_FEATURES) and isinstance(contract.input, PatchInput):
        raise ContractError(f"the model takes {contract.input}, and {paths[0]} holds features; give slides or stores")
    folders = {path.parent for path in paths}
    if len(kinds) > 1 or len(folders) > 1:
        raise InputError(f"{', '.join(map(str, paths))}: give slides, or stores or features of one folder")
    missing = next((path for path in paths if isinstance(as_location(path), Path) and not path.exists()), None)
    if missing is not None:
        raise InputError(f"{missing} does not exist; check the path")
    return folders.pop(), [path.name.removesuffix(path.suffix) for path in paths]


def bags_of(
    cases: Sequence[Case], folder: Location, contract: InputContract, targets: Sequence[Target] | None = None
) -> WholeSlides | FeatureBags:
    """Return the bags of cases, whose stores or features are in a folder.

    Args:
        cases: The cases.
        folder: Folder of stores, or of features if the model takes features.
        contract: Input contract of the model.
        targets: Target of each case; by default unknown.

    Raises:
        ContractError: The stores or features do not fit the model.
        BagError: They cannot be used in the same bags.
    """
    targets = [Target()] * len(cases) if targets is None else targets
    if isinstance(contract.input, FeatureInput):
        features = FeatureFolder(folder)
        contract.check_input(check_features(cases, features))
        return FeatureBags(cases, targets, features)
    index = CohortIndex(folder)
    check_stores(cases, index)
    store = PatchStore(store_path(folder, cases[0].slides[0]))
    settings = contract.input or PatchInput.of(store, "finest", 256)
    contract.check_input(PatchInput.of(store, settings.eval_scales, settings.eval_chunk_size))
    return WholeSlides(
        cases, targets, folder, chunk_size=settings.eval_chunk_size, scales=settings.eval_scales, index=index
    )


def _cut(slide: SlideFile, out: Path, tiling: Tiling) -> None:
    """Cut one slide into patches, in this process."""
    row = make_store(SlideJob(slide, out, tiling, threads=os.cpu_count() or 1))
    if row.status == "failed":
        raise SlideError(row.reason)
