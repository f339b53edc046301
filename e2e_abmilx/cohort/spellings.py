"""Words of tables: which split is meant, which names are nearly the same, which names a spreadsheet has spoilt."""

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
_TOTALS = {
    "total",
    "totals",
    "grandtotal",
    "subtotal",
    "sum",
    "mean",
    "average",
    "gesamt",
    "summe",
    "insgesamt",
}
_LISTED_LINES = 5


def read_split(text: str) -> str:
    """``train``, ``val`` or ``test`` where a text spells one of them, the number of a fold as digits, else the text.

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
    """The names of classes as a table spells them, from settings in which YAML may have read them as numbers.

    Raises:
        CohortError: One is a boolean or nothing, as YAML reads ``no``, ``yes``, ``on``, ``off`` and ``null``.
    """
    lost = [name for name in classes if name is None or isinstance(name, bool)]
    if lost:
        raise CohortError(
            f"classes: YAML reads no, yes, on, off, true, false and null without quotes as {', '.join(map(str, lost))}; put"
            " the names into quotes as the table spells them, such as classes: ['no', 'yes']"
        )
    return [str(name) for name in classes]


def plain_spelling(text: str) -> str:
    """A text without what is often spelt in several ways: capitals, spaces, joints of words, ``.0`` of numbers.

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
    """An id without capitals, spaces and the ``.0`` that spreadsheets add to numbers; zeros before a number count.

    >>> plain_id("P 7.0") == plain_id("p7"), plain_id("007") == plain_id("7")
    (True, False)
    """
    return re.sub(r"\s", "", re.sub(r"(?<=\d)\.0+$", "", text.strip())).casefold()


def refuse_near_spellings(
    texts: Iterable[tuple[str, str]], noun: str, plain: Callable[[str], str] = plain_spelling
) -> None:
    """Refuse texts that differ by no more than their spelling.

    Args:
        texts: Each text with its place: a file and line, or another description.
        noun: What the texts are, for the message.
        plain: What is the same for all spellings of a text.

    Raises:
        CohortError: Two are nearly the same.
    """
    spellings: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for text, where in texts:
        spellings[plain(text)][text].append(where)
    for alike in spellings.values():
        if len(alike) > 1:
            listed = " and ".join(f"{text!r} ({_places(places)})" for text, places in sorted(alike.items()))
            raise CohortError(
                f"{noun}s with nearly the same spelling: {listed}; spell each {noun} in one way, or rename one if they"
                " differ"
            )


def refuse_spoilt_name(text: str, noun: str, where: str) -> None:
    """Refuse a name that stands for none, or that a spreadsheet has made of another.

    Raises:
        CohortError: It is empty, a word for missing, a sum at the end of a table, a date or a rounded number.
    """
    if is_missing(text):
        shown = f" ({text!r} means missing)" if text.strip() else ""
        cure = (
            f", or leave the column out with columns: {{{noun}: null}}"
            if noun in ("patient", "group")
            else ""
        )
        raise CohortError(f"{where}: the {noun} is empty{shown}; every row names it{cure}")
    if plain_key(text) in _TOTALS:
        raise CohortError(
            f"{where}: {noun} {text!r} is no {noun} but a sum of the rows above; take the row out"
        )
    if re.fullmatch(r"\d{1,4}/\d{1,2}/\d{1,4}", text):
        raise CohortError(
            f"{where}: {noun} {text!r} is a date, which spreadsheets make of names; write the name as text"
        )
    if re.fullmatch(r"\d([.,]\d+)?[Ee]\+?\d+", text) and re.search("[.,+]", text):
        raise CohortError(
            f"{where}: {noun} {text!r} is a long number that a spreadsheet has rounded; write the name as text"
        )


def _places(places: list[str]) -> str:
    """The places of a text, shortened: ``labels.csv:3, :8, …``."""
    first, *others = dict.fromkeys(places)
    file = first.rpartition(":")[0]
    short = [place.removeprefix(file) if file else place for place in others]
    more = f" and {len(short) - _LISTED_LINES + 1} more" if len(short) >= _LISTED_LINES else ""
    return ", ".join([first, *short[: _LISTED_LINES - 1]]) + more
