"""Pieces of an HTML page, every text of which is escaped."""

import base64
import html
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

_NUMBER = re.compile(r"[-−]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?( ?± ?[\d.]+)?( \(.*\))?|–")
_OVERLAY_SIDE = 640  # pixels


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(text: object) -> str:
    """Return text as HTML, and markup as it is."""
    return text if isinstance(text, Markup) else html.escape(str(text))


def join(*content: object) -> Markup:
    """Return pieces one after the other."""
    return Markup("".join(map(escape, content)))


def element(tag: str, *content: object, **attributes: str) -> Markup:
    """Return an element; ``_`` stands for ``-`` in the names of attributes, and at their end for nothing."""
    named = (
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for name, value in attributes.items()
    )
    return Markup(f"<{tag}{''.join(named)}>{join(*content)}</{tag}>")


def table(
    caption: str, head: Sequence[object], rows: Iterable[Sequence[object]], *, sortable: bool = False
) -> Markup:
    """Return a table whose first column names the rows; numbers stand to the right."""
    lines = list(rows)
    columns = list(zip(*lines, strict=True)) or [()] * len(head)
    numeric = [all(_NUMBER.fullmatch(str(cell)) for cell in column) for column in columns]
    classes = [{"class_": "number"} if right else {} for right in numeric]
    heads = [element("th", cell, scope="col", **kind) for cell, kind in zip(head, classes, strict=True)]
    body = [
        element(
            "tr",
            element("th", line[0], scope="row"),
            *(element("td", cell, **kind) for cell, kind in zip(line[1:], classes[1:], strict=True)),
        )
        for line in lines
    ]
    whole = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *heads)),
        element("tbody", *body),
        **({"class_": "sortable"} if sortable else {}),
    )
    frame = "wide tall" if sortable else "wide"
    return element("div", whole, class_=frame, tabindex="0", role="region", aria_label=caption)


def drawing(figure: Figure, alt: str) -> Markup:
    """Return a figure as an image that lies in the page; the same figure gives the same bytes."""
    with matplotlib.rc_context({"svg.hashsalt": "e2e_abmilx"}):
        figure.savefig(file := io.BytesIO(), format="svg", transparent=True, metadata={"Date": None})
    return _image("svg+xml", file.getvalue(), alt, "drawing")


def photograph(path: Path, alt: str) -> Markup:
    """Return a small copy of an image that lies in the page."""
    with Image.open(path) as picture:
        picture.thumbnail((_OVERLAY_SIDE, _OVERLAY_SIDE))
        picture.convert("RGB").save(file := io.BytesIO(), "JPEG", quality=80)
    return _image("jpeg", file.getvalue(), alt, "overlay")


def _image(kind: str, content: bytes, alt: str, name: str) -> Markup:
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return Markup(f'<img class="{name}" alt="{html.escape(alt)}" src="{source}">')
