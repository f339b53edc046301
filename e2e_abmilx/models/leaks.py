"""Cases of an external cohort that a model has seen in training: by name, or by the look of their slides."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatch

from e2e_abmilx.cache.thumbnails import read_thumbnail_hashes
from e2e_abmilx.cohort import Case
from e2e_abmilx.data.contract import ContractError, InputContract
from e2e_abmilx.data.feature_bags import FeatureBags
from e2e_abmilx.data.features import features_digest
from e2e_abmilx.data.seen_cases import Marks
from e2e_abmilx.data.slide_bags import WholeSlides
from e2e_abmilx.store import CohortIndex

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
    seen = [contract.seen for contract in contracts if contract.seen is not None]
    cases = [case for case in bags.cases if not _is_allowed(case, allowed)]
    marks = _marks_of(bags, cases) if any(one.has_marks for one in seen) else {}
    found: dict[str, str] = {}
    for one in seen:
        found |= {**one.find_names(cases, lambda _: marks), **one.find_copies(cases, marks)}
    if found:
        lines = [f"{case}: {reason}" for case, reason in list(found.items())[:_SHOWN]]
        lines += [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
        title = f"{len(found)} of {len(bags.cases)} cases are among those that the model was trained or validated on:"
        cure = "remove them from the table; if one is another case, name it: --allow '[CASE, …]'"
        raise ContractError("\n  ".join([title, *lines]) + f"\n{cure}")
    return list(_unchecked(contracts, [slide for slide, mark in marks.items() if mark is None]))


def _marks_of(bags: WholeSlides | FeatureBags, cases: Sequence[Case]) -> Marks:
    slides = [slide for case in cases for slide in case.slides]
    if isinstance(bags, FeatureBags):
        return {slide: features_digest(bags.folder.open(slide)) for slide in slides}
    return read_thumbnail_hashes(CohortIndex(bags.cache), slides)


def _unchecked(contracts: Sequence[InputContract], unknown: Sequence[str]) -> Iterator[str]:
    if any(contract.seen is None for contract in contracts):
        yield "the model does not record its training cases, so it is not known whether it has seen these"
    elif not all(contract.seen is not None and contract.seen.has_marks for contract in contracts):
        yield "the model records no thumbnails of its training slides, so renamed copies of them are not recognised"
    if unknown:
        shown = ", ".join(unknown[:_SHOWN]) + ", …" * (len(unknown) > _SHOWN)
        yield (
            f"{len(unknown)} slides have no thumbnail, or one that shows too little, so that they could be renamed copies"
            f" of training slides: {shown}"
        )


def _is_allowed(case: Case, allowed: Sequence[str]) -> bool:
    """Return whether a case or one of its slides is named as written, which may hold brackets, or by a pattern."""
    return any(name == one or fnmatch(name, one) for name in (case.id, *case.slides) for one in allowed)
