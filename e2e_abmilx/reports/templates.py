"""HTML pages from templates, which load nothing from the network."""

import base64
import io
from pathlib import Path

import jinja2
import matplotlib
from matplotlib.figure import Figure

from e2e_abmilx import __version__
from e2e_abmilx.io.atomic import atomic_write

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_template(template: str, path: Path, **content: object) -> None:
    """Write a page from a template of this room, such as ``page.html``, and the values that it shows."""
    page = _TEMPLATES.get_template(template).render(**content, version=__version__)
    with atomic_write(path) as partial:
        partial.write_text(page, encoding="utf-8")


def embed_figure(figure: Figure) -> str:
    """Return a figure as a data URI; the same figure gives the same bytes."""
    with matplotlib.rc_context({"svg.hashsalt": "e2e_abmilx"}):
        figure.savefig(file := io.BytesIO(), format="svg", transparent=True, metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}"
