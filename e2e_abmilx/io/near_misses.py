"""The name that a mistyped name probably means."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return for example ``"; did you mean --data.labels?"``; an empty text where no name is similar.

    An option of a nested class, such as ``--dta.labels``, is also compared by its first part alone.
    """
    known = sorted(set(names))
    near = difflib.get_close_matches(name, known, n=1)
    head, dot, rest = name.partition(".")
    if not near and dot and head not in known:
        near = [f"{option}.{rest}" for option in difflib.get_close_matches(head, known, n=1)]
    return f"; did you mean {near[0]}?" if near else ""
