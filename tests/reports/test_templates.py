import base64
from pathlib import Path

import jinja2
import pytest
from matplotlib.figure import Figure
from pages import Page

from e2e_abmilx import __version__
from e2e_abmilx.reports.page_table import Table
from e2e_abmilx.reports.templates import embed_figure, write_template

CONTENT = {
    "title": "A & B",
    "subtitle": "",
    "facts": None,
    "notes": ["<b>"],
    "tiles": [],
    "measure_table": Table("Measures", ["measure", "value", "where"], [["2", "0.5 (0.4 to 0.6)", {"here": "a.html"}]]),
    "explanation": "",
    "measures": [],
    "figures": [],
    "group_tables": [],
}


def test_a_page_has_the_common_layout(tmp_path: Path) -> None:
    write_template("external.html", tmp_path / "page.html", **CONTENT)
    page = Page(tmp_path / "page.html")
    assert page.texts_in("h1") == page.texts_in("title") == ["A & B"]
    assert page.texts_in("li") == ["<b>"]
    assert page.texts_in("p") == [".", f"Written by e2e-abmilx {__version__}."]
    heads = [attributes.get("class") for tag, attributes in page.attributes if tag == "th"]
    assert heads == [None, "number", None, None]  # the names of rows are aligned to the left, also numbers
    assert "a.html" in page.attribute("a", "href")


def test_a_forgotten_value_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(jinja2.UndefinedError, match="subtitle"):
        write_template("external.html", tmp_path / "page.html", **{k: v for k, v in CONTENT.items() if k != "subtitle"})
    assert not list(tmp_path.iterdir())


def test_the_same_figure_gives_the_same_bytes() -> None:
    sources = set()
    for _ in range(2):
        figure = Figure()
        figure.add_subplot().plot([0, 1], [1, 0])
        sources.add(embed_figure(figure))
    (source,) = sources
    kind, _, data = source.partition(";base64,")
    assert kind == "data:image/svg+xml"
    assert b"<svg" in base64.b64decode(data)
