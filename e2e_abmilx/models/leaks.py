"""Cases of an external cohort that a model has seen in training: by name, or by the look of their slides."""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch

from e2e_abmilx.cache.thumbnails import read_thumbnail_hash
from e2e_abmilx.cohort import Case
from e2e_abmilx.data.contract import ContractError, InputContract
from e2e_abmilx.data.feature_bags import FeatureBags
from e2e_abmilx.data.features import features_digest
from e2e_abmilx.data.slide_bags import WholeSlides
from e2e_abmilx.io.progress import track
from e2e_abmilx.slides.duplicates import find_same
from e2e_abmilx.store import PatchStore

_SHOWN = 10


def refuse_seen_cases(
    bags: WholeSlides | FeatureBags, contracts: Sequence[InputContract], allowed: Sequence[str] = ()
) -> list[str]:
    """Refuse cases that a model was trained or validated on, by name or as renamed copies.

    Args:
        bags: The cases and where their slides are.
        contracts: Contracts of the models.
        allowed: Names of cases or slides, or patterns such as ``slide-1*``, that are known to be other ones.

    Returns:
        What could not be checked, one sentence each.

    Raises:
        ContractError: There are such cases, which are listed.
    """
    cases = [case for case in bags.cases if not any(fnmatch(name, one) for name in _names(case) for one in allowed)]
    known = {mark for contract in contracts if contract.seen for mark in contract.seen.marks}
    marks = slide_marks(bags, cases) if known else {}
    found = {**_same_marks(bags, cases, marks, known), **_same_names(cases, contracts)}
    if found:
        listed = [f"{case}: {reason}" for case, reason in found.items()]
        more = [f"and {len(listed) - _SHOWN} more"] if len(listed) > _SHOWN else []
        raise ContractError(
            "\n  ".join(
                [
                    f"the model was trained or validated on {len(found)} of {len(bags.cases)} cases:",
                    *listed[:_SHOWN],
                    *more,
                ]
            )
            + "\nremove them from the table; if one is another case, name it: --allow '[CASE, …]'"
        )
    return list(_unchecked(contracts, [slide for slide, mark in marks.items() if mark is None]))


def slide_marks(bags: WholeSlides | FeatureBags, cases: Sequence[Case]) -> dict[str, str | None]:
    """Return a mark of each slide that renaming does not change; None for slides that show too little to be known.

    It is the perceptual hash of the thumbnail, or a digest of the features.
    """
    slides = [slide for case in cases for slide in case.slides]
    if isinstance(bags, FeatureBags):
        return {slide: features_digest(bags.folder.open(slide)) for slide in slides}
    stores = (PatchStore(bags.cache / f"{slide}.zarr") for slide in track(slides, "comparing", "slides"))
    return {store.name: read_thumbnail_hash(store) for store in stores}


def _same_names(cases: Sequence[Case], contracts: Sequence[InputContract]) -> dict[str, str]:
    reasons = {}
    for contract in contracts:
        for case, name in (contract.seen.find(cases) if contract.seen else {}).items():
            reasons[case] = f"{name!r} is the name of a case, slide or patient of the training"
    return reasons


def _same_marks(
    bags: WholeSlides | FeatureBags, cases: Sequence[Case], marks: Mapping[str, str | None], known: set[str]
) -> dict[str, str]:
    hashes = {slide: mark for slide, mark in marks.items() if mark is not None}
    if isinstance(bags, FeatureBags):
        same = {slide: "has the features of a slide of the training" for slide, mark in hashes.items() if mark in known}
    else:
        same = {
            slide: f"looks like a slide of the training ({distance:.0%} of the bits of its thumbnail's hash differ)"
            for slide, distance in find_same(hashes, known).items()
        }
    return {case.id: f"slide {slide!r} {same[slide]}" for case in cases for slide in case.slides if slide in same}


def _unchecked(contracts: Sequence[InputContract], unknown: Sequence[str]) -> Iterator[str]:
    if any(contract.seen is None for contract in contracts):
        yield "the model does not record its training cases, so it is not known whether it has seen these"
    elif not all(contract.seen and contract.seen.marks for contract in contracts):
        yield "the model records no thumbnails of its training slides, so renamed copies of them are not recognised"
    if unknown:
        shown = ", ".join(unknown[:_SHOWN]) + ", …" * (len(unknown) > _SHOWN)
        yield (
            f"{len(unknown)} slides have no thumbnail, or one that shows too little, so that they could be renamed copies"
            f" of training slides: {shown}"
        )


def _names(case: Case) -> tuple[str, ...]:
    return (case.id, *case.slides)
