"""The addresses of the server, below its token, and what each gives.

Addresses are matched as they are sent, without decoding: they consist of fixed words, integers, and the names of a fixed
list of files, so that none can lead outside.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from e2e_abmilx.errors import InputError
from e2e_abmilx.viewer.documents import case_document, encode, review_document, run_document
from e2e_abmilx.viewer.viewed_run import NotFoundError, ViewedRun

STATIC = Path(__file__).with_name("static")
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
}
_N = r"(\d{1,9})"


class Answer(NamedTuple):
    """What the server sends: the bytes, their MIME type, and for how many seconds a browser may keep them."""

    body: bytes
    kind: str
    keep: int = 0


class Routes:
    """The addresses of one viewer.

    Args:
        viewed: The run that is looked at.
    """

    def __init__(self, viewed: ViewedRun) -> None:
        self._viewed = viewed
        self._files = {path.name: path for path in STATIC.iterdir() if path.suffix in _KINDS}
        slide = rf"case/{_N}/slide/{_N}"
        self._routes: list[tuple[re.Pattern[str], Callable[..., Answer]]] = [
            (re.compile(pattern, re.ASCII), make)
            for pattern, make in (
                ("(?:index.html)?", lambda: self._file("index.html")),
                (r"static/([\w.-]+)", self._file),
                (r"run\.json", lambda: self._document(run_document(viewed))),
                (rf"case/{_N}\.json", lambda case: self._document(case_document(viewed, int(case)))),
                (rf"case/{_N}/thumbnail\.jpg", lambda *numbers: _jpeg(viewed.thumbnail, numbers)),
                (rf"{slide}/tile/{_N}_{_N}_{_N}\.jpg", lambda *numbers: _jpeg(viewed.tile, numbers)),
                (rf"{slide}/patch/{_N}_{_N}_{_N}\.jpg", lambda *numbers: _jpeg(viewed.patch, numbers)),
            )
        ]

    def get(self, address: str) -> Answer:
        """Return what an address gives.

        Raises:
            NotFoundError: There is nothing.
            InputError: It cannot be read.
        """
        for pattern, make in self._routes:
            if found := pattern.fullmatch(address):
                return make(*found.groups())
        raise NotFoundError("there is nothing at this address")

    def save_review(self, body: bytes) -> Answer:
        """Save a review that the page sends as JSON, and return it.

        Raises:
            InputError: It is no review.
        """
        try:
            sent: Any = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise InputError(f"the review is no JSON ({error})") from error
        if not isinstance(sent, dict) or not _is_number(sent.get("case")):
            raise InputError("the review names no case; it must be a JSON object with the number of a case")
        case, slide = self._viewed.case(sent["case"]), sent.get("slide")
        if slide is not None and not (_is_number(slide) and 0 <= slide < len(case.slides)):
            raise InputError(
                f"case {case.name!r} has {len(case.slides)} slides; the review is of slide {str(slide)[:40]}"
            )
        name = "" if slide is None else case.slides[slide].source.name
        place = (sent.get("x_um"), sent.get("y_um"))
        saved = self._viewed.reviews.add(case.name, name, sent.get("verdict"), sent.get("note") or "", *place)
        return self._document({"saved": review_document(saved)})

    def _file(self, name: str) -> Answer:
        if name not in self._files:
            raise NotFoundError("there is no such file")
        return Answer(self._files[name].read_bytes(), _KINDS[self._files[name].suffix])

    def _document(self, document: dict[str, Any]) -> Answer:
        return Answer(encode(document), "application/json")


def _jpeg(make: Callable[..., bytes], numbers: tuple[str, ...]) -> Answer:
    return Answer(make(*map(int, numbers)), "image/jpeg", 3600)


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
