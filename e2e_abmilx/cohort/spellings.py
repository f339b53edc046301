"""Spellings: words for splits, labels and ids that differ only in spelling, names that a spreadsheet has damaged."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from e2e_abmilx.cohort.label_tables import CohortError
from e2e_abmilx.io.tables import is_missing, plain_key

_SPLIT_WORDS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "validate", "validating", "tune", "tuning"),
    "test": ("test", "testing", "tst", "holdout", "heldout"),
}
_SPLITS = {word: split for split, words in _SPLIT_WORDS.items() for word in words}
_TOTALS = (
    "total", "totals", "grandtotal", "subtotal", "sum", "mean", "average", "gesamt", "summe", "insgesamt",
)  # fmt: skip
_LISTED_LINES = 5


def read_split(text: str) -> str:
    """Return ``train``, ``val`` or ``test`` if a text spells one of them, a fold number as digits, otherwise the text.

    >>> [read_split(text) for text in ("Training", "valid", "Test set", "fold_1", "2.0", "dev", "n/a")]
    ['train', 'val', 'test', '1', '2', 'dev', '']
    """
    word = re.sub(r"(set|split|data|cohort)$", "", plain_key(text)) or plain_key(text)
    if word in _SPLITS:
        return _SPLITS[word]
    if fold := re.fullmatch(r"(?:(?:fold|cv)[\s_-]*)?0*(\d+)(?:\.0+)?", text.strip().lower()):
        return fold[1]
    return "" if is_missing(text) else text.strip().lower()


def spell_classes(classes: Sequence[str | int | float | bool | None]) -> list[str]:
    """Return class names as text, from settings in which YAML may have read them as numbers.

    Raises:
        CohortError: A name is a boolean or None, which is how YAML reads ``no``, ``yes``, ``on``, ``off`` and ``null``.
    """
    lost = [name for name in classes if name is None or isinstance(name, bool)]
    if lost:
        raise CohortError(
            f"classes: YAML reads no, yes, on, off, true, false and null without quotes as {', '.join(map(str, lost))}; put"
            " the names in quotes as the table spells them, such as classes: ['no', 'yes']"
        )
    return [str(name) for name in classes]


def plain_spelling(text: str) -> str:
    """Return a label without variable spelling: capitals, spaces, hyphens between words, ``.0`` after numbers.

    >>> plain_spelling("High-grade ") == plain_spelling("high grade"), plain_spelling("1.0") == plain_spelling("1")
    (True, True)
    >>> plain_spelling("HER2+") == plain_spelling("HER2-")
    False
    """
    folded = re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()
    if re.fullmatch(r"[+-]?\d+([.,]\d+)?", folded):
        return str(float(folded.replace(",", ".")))
    return re.sub(r"(?<=[^\W\d_])[\s_-]+(?=\w)|(?<=\w)[\s_-]+(?=[^\W\d_])|\s", "", folded)


def plain_id(text: str) -> str:
    """Return an id without capitals, spaces and the ``.0`` that spreadsheets add; leading zeros stay.

    >>> plain_id("P 7.0") == plain_id("p7"), plain_id("007") == plain_id("7")
    (True, False)
    """
    return re.sub(r"\s", "", re.sub(r"(?<=\d)\.0+$", "", text.strip())).casefold()


def refuse_near_spellings(
    texts: Iterable[tuple[str, str]], noun: str, plain: Callable[[str], str] = plain_spelling
) -> None:
    """Refuse texts, each given with its file and line, that differ only in spelling: ``plain`` maps them to one string.

    Raises:
        CohortError: Two texts are nearly the same.
    """
    spellings: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for text, where in texts:
        if text:
            spellings[plain(text)][text].append(where)
    for alike in spellings.values():
        if len(alike) > 1:
            listed = " and ".join(f"{text!r} ({_places(places)})" for text, places in sorted(alike.items()))
            raise CohortError(
                f"{noun}s with nearly the same spelling: {listed}; spell each {noun} in one way, or rename one if they"
                " differ"
            )


def refuse_damaged_name(text: str, noun: str, where: str) -> None:
    """Refuse a name that is missing, or that a spreadsheet has changed.

    Raises:
        CohortError: It is empty, a word for a missing value, the label of a row of totals, a date or a rounded number.
    """
    if is_missing(text):
        shown = f" ({text!r} means missing)" if text.strip() else ""
        optional = noun in ("patient", "group")
        cure = f", or ignore the column with columns: {{{noun}: null}}" if optional else ""
        raise CohortError(f"{where}: the {noun} is empty{shown}; every row must name it{cure}")
    problem = cure = ""
    if plain_key(text) in _TOTALS:
        problem, cure = "sums up the rows above", "remove the row"
    elif re.fullmatch(r"\d{1,4}/\d{1,2}/\d{1,4}", text):
        problem, cure = "is a date, into which spreadsheets convert some names", "write the name as text"
    elif re.fullmatch(r"\d([.,]\d+)?[Ee]\+?\d+", text) and re.search("[.,+]", text):
        problem, cure = "is a long number that a spreadsheet has rounded", "write the name as text"
    if problem:
        raise CohortError(f"{where}: {noun} {text!r} {problem}; {cure}")


def _places(places: list[str]) -> str:
    """Return the places of a text, shortened: ``labels.csv:3, :8, …``."""
    first, *others = dict.fromkeys(places)
    file = first.rpartition(":")[0]
    short = [place.removeprefix(file) if file else place for place in others]
    more = f" and {len(short) - _LISTED_LINES + 1} more" if len(short) >= _LISTED_LINES else ""
    return ", ".join([first, *short[: _LISTED_LINES - 1]]) + more
