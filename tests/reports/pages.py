"""HTML pages of hand-written runs, read back."""

from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
from hand_written import write_run

from e2e_abmilx.main import main
from e2e_abmilx.runs.read import Run

VOID = {"meta", "img", "br"}
METRICS = pd.DataFrame(
    {
        "epoch": [0, 0, 1, 1],
        "step": [3, 3, 7, 7],
        "train/loss_epoch": [0.9, None, 0.5, None],
        "val/loss": [None, 0.8, None, 0.6],
        "train/fraction_holding_95": [0.9, None, 0.7, None],
        "val/fraction_holding_95": [None, 0.9, None, 0.8],
        "test/threshold": [None, None, None, 0.4],
    }
)

RECORD = """\
versions: {e2e_abmilx: 0.1.0, torch: 2.9.1, cuda: null}
hardware: {cpu: A <fast> CPU, cores: 16, memory_gib: 125.7, gpus: [H100, H100], processes: 2}
precision: bf16-mixed
seed: 0
parameters: {encoder: 2782784, head: 62273}
fit: {started: 2026-03-01 12:30:00+00:00, ended: 2026-03-01 14:35:07+00:00, seconds: 7507.4, times_resumed: 1,
  epochs: 2, seconds_per_epoch: 3753.7}
best: {epoch: 1, monitor: val/loss, value: 0.6}
test: {ended: 2026-03-01 14:36:00+00:00, seconds: 12.34}
"""


class Page(HTMLParser):
    """The content of a page; every opened element must be closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def attribute(self, tag: str, name: str) -> list[str]:
        return [attributes[name] for one, attributes in self.attributes if one == tag and name in attributes]

    def texts_in(self, tag: str) -> list[str]:
        return [text for one, text in self.texts if one == tag]


def write_fold(folder: Path, predictions: pd.DataFrame, **settings: object) -> Run:
    run = write_run(folder, predictions, data=dict(settings))
    METRICS.to_csv(folder / "metrics.csv", index=False)
    return run


def make_page(folder: Path, runs: Sequence[Run], *options: str) -> Page:
    main(["report", "--runs", f"[{','.join(str(run.folder) for run in runs)}]", "--html", "true", *options])
    return Page(folder / "report.html")


def facts_of(page: Page) -> dict[str, list[str]]:
    """Return the cells of each row, by the text of its first cell."""
    rows: dict[str, list[str]] = {}
    for tag, text in page.texts:
        if tag == "th":
            cells = rows.setdefault(text, [])
        elif tag == "td":
            cells.append(text)
    return rows
