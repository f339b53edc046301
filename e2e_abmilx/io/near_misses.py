"""The name that a mistyped name probably means."""

import argparse
import difflib
from collections.abc import Iterable, Sequence

from e2e_abmilx.errors import InputError

_SAME_BEGINNING, _LEAST = 0.85, 4  # similarity, letters


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return for example ``"; did you mean --data.labels?"``; an empty text where no name is similar.

    Where the first part of a dotted name, such as ``--dta.labels``, does not exist, that part is corrected first.
    """
    known = sorted(set(names))
    head, dot, rest = name.partition(".")
    heads = sorted({option.partition(".")[0] for option in known})
    if dot and head not in heads:
        near_heads = difflib.get_close_matches(head, heads, n=1)
        corrected = [f"{option}.{rest}" for option in near_heads]
        near = [match for option in corrected for match in difflib.get_close_matches(option, known, n=1, cutoff=0.9)]
        near = near or corrected
    else:
        near = difflib.get_close_matches(name, known, n=1) or _begin_alike(name, known)
    return f"; did you mean {near[0]}?" if near else ""


def _begin_alike(name: str, known: Sequence[str]) -> list[str]:
    """Return the only name that begins as a shorter one does, such as ``hidden_features`` for ``hiden``, if any."""
    begins = [
        one for one in known if difflib.SequenceMatcher(None, name, one[: len(name) + 1]).ratio() >= _SAME_BEGINNING
    ]
    return begins if len(begins) == 1 and len(name) >= _LEAST else []


def refuse_near_misses(parser: argparse.ArgumentParser, others: Sequence[str]) -> None:
    """Refuse words that are left for another parser but are nearly options of this one, such as ``--fold``.

    Raises:
        InputError: There is such an option.
    """
    own = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    for word in others:
        name = word.split("=")[0]
        near = difflib.get_close_matches(name, own, n=1, cutoff=0.8) if name.startswith("--") else []
        if near and name != "--config":  # which is an option of fit
            command = parser.prog.split()[-1]
            raise InputError(f"{name} is no option of {command}; did you mean {near[0]}?")
