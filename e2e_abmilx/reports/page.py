"""A report as one HTML page, which loads nothing from anywhere."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import Template
from urllib.parse import quote

import pandas as pd

from e2e_abmilx import __version__
from e2e_abmilx.evaluation.bootstrap import Estimate
from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.reports.cases import case_table, find_heatmaps
from e2e_abmilx.reports.figures import Drawing, draw_figures, named_summaries
from e2e_abmilx.reports.markup import Markup, drawing, element, escape, join, photograph, table
from e2e_abmilx.reports.measures import Measure, has_multi_labels
from e2e_abmilx.reports.origins import Origin, origins_of
from e2e_abmilx.reports.records import Record, read_record
from e2e_abmilx.reports.report import Report
from e2e_abmilx.reports.summary import Summary
from e2e_abmilx.reports.tables import common_folder, decimals, explanations, run_names
from e2e_abmilx.runs.read import Run

_TEMPLATE = Path(__file__).with_name("page.html")
_FIRST = ("label", "predicted", "time", "event", "risk", "rightness")
_EXTREMES = 5  # cases that are shown as the best and the worst


def write_page(report: Report, path: Path) -> None:
    """Write the page; links to heatmaps are relative to its folder."""
    runs = [*report.summary.runs, *(report.against.runs if report.against else [])]
    origins = {origin: origin.read_cases() for origin in origins_of(runs)}
    slides = {case: named for cases in origins.values() for case, named in cases.items()}
    parts = {
        "title": common_folder(report.summary.runs).name,
        "subtitle": _subtitle(report.summary),
        "notes": _notes(report.notes),
        "tiles": _tiles(report.summary, report.measures),
        "measures": _measures(report),
        "cohort": join(*map(_origin, origins, origins.values()), _splits(runs)),
        "figures": join(*map(_figure, draw_figures(report))),
        "cases": _cases(report.summary.runs, slides, path.parent),
        "runs": _runs(runs),
        "footer": f"Written by e2e-abmilx {__version__}.",
    }
    page = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        {name: escape(part) for name, part in parts.items()}
    )
    with atomic_write(path) as partial:
        partial.write_text(page, encoding="utf-8")


def _subtitle(summary: Summary) -> str:
    model = summary.runs[0].settings.get("model") or {}
    parts = [model, *((model.get("init_args") or {}).get(name) for name in ("encoder", "head"))]
    names = [
        part["class_path"].rpartition(".")[2]
        for part in parts
        if isinstance(part, dict) and "class_path" in part
    ]
    cases = {case for run in summary.runs for case in run.predictions.index}
    counts = [_count(len(cases), "tested case"), _count(len(summary.runs), "run")]
    return " · ".join([*names, *counts])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _notes(notes: Sequence[str]) -> Markup:
    return element("ul", *(element("li", note) for note in notes), class_="notes") if notes else Markup()


def _tiles(summary: Summary, measures: Mapping[str, Measure]) -> Markup:
    """The first measures in large print."""
    tiles = []
    for name in list(measures)[:4]:
        if summary.pooled:
            value = summary.pooled[name]
            large, small = decimals(value.point), f"95 %: {decimals(value.low)} to {decimals(value.high)}"
        else:
            spread = summary.spread[name]
            large, small = decimals(spread.mean), f"± {decimals(spread.std)}, std over {spread.runs} runs"
        tiles.append(element("li", measures[name].title, element("b", large), element("small", small)))
    return element("ul", *tiles, class_="tiles")


def _measures(report: Report) -> Markup:
    tables = [
        _summary_table(name, summary, report.measures) for name, summary in named_summaries(report).items()
    ]
    how = element("p", ". ".join([*explanations(report), "–: not defined"]), ".", class_="faint")
    definitions = [
        join(element("dt", one.title), element("dd", one.definition)) for one in report.measures.values()
    ]
    meanings = element("details", element("summary", "What the measures are"), element("dl", *definitions))
    return join(*tables, _comparison(report), how, meanings)


def _summary_table(name: str, summary: Summary, measures: Mapping[str, Measure]) -> Markup:
    names = run_names(summary.runs) if len(summary.runs) > 1 else []
    pooled = ["pooled" if names else "tested cases"] if summary.pooled else []
    head = ["measure", *pooled, *(["mean ± std"] if names else []), *names]
    rows = []
    for key, measure in measures.items():
        row: list[object] = [measure.title]
        if summary.pooled:
            row.append(_with_interval(summary.pooled[key]))
        if names:
            spread = summary.spread[key]
            row += [f"{decimals(spread.mean)} ± {decimals(spread.std)}"]
            row += [_with_interval(values[key]) for values in summary.per_run]
        rows.append(row)
    folder = f"{name}: " * bool(name) + str(_from_here(common_folder(summary.runs)))
    return table(f"{folder}, with 95 % intervals", head, rows)


def _from_here(folder: Path) -> Path:
    """The folder as one would name it here."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _with_interval(value: Estimate) -> str:
    return f"{decimals(value.point)} ({decimals(value.low)} to {decimals(value.high)})"


def _comparison(report: Report) -> Markup:
    if report.comparison is None:
        return Markup()
    cases, only_first, only_second, compared = report.comparison
    rows = [
        [
            report.measures[name].title, decimals(first), decimals(second), _with_interval(change.estimate),
            decimals(change.p_value),
        ]
        for name, (first, second, change) in compared.items()
    ]  # fmt: skip
    caption = (
        f"first − second, on {cases} shared cases ({only_first} only in the first, {only_second} only"
        " in the second)"
    )
    return table(caption, ["measure", "first", "second", "difference", "p"], rows)


def _origin(origin: Origin, cases: Mapping[str, Sequence[str]]) -> Markup:
    """How many slides and cases there were, as far as the files of the settings can still be read."""
    cached = origin.read_slides()
    set_aside = [slide for slide in cached.values() if slide.status == "failed"]
    steps = []
    if cached:
        stored = [slide for slide in cached.values() if slide.status == "done"]
        patches = sum(slide.num_patches for slide in stored)
        steps += [
            (len(cached), f"slides given to the cache {origin.cache}"),
            (len(set_aside), "set aside, because they could not be read"),
            (len(stored), f"cached: {patches:,} patches of all scales"),
        ]
    if cases:
        named = sum(map(len, cases.values()))
        steps.append((len(cases), f"cases with {named} slides in {origin.labels}"))
    flow = element("ol", *(element("li", element("b", count), text) for count, text in steps), class_="flow")
    reasons = [[slide.slide, slide.reason] for slide in set_aside]
    return join(
        flow if steps else Markup(),
        table("Slides set aside", ["slide", "reason"], reasons) if reasons else Markup(),
    )


def _splits(runs: Sequence[Run]) -> Markup:
    rows = []
    for name, run in zip(run_names(runs), runs, strict=True):
        sizes = run.splits["split"].value_counts()
        known = not run.splits.empty
        rows.append(
            [
                name,
                *(sizes.get(split, 0) if known else "–" for split in ("train", "val")),
                len(run.predictions),
            ]
        )
    return table("Cases of each run", ["run", "training", "validation", "tested"], rows)


def _figure(one: Drawing) -> Markup:
    return element(
        "figure",
        element("h3", one.title),
        drawing(one.figure, f"{one.title}. {one.caption}"),
        element("figcaption", one.caption),
    )


def _cases(runs: Sequence[Run], slides: Mapping[str, Sequence[str]], folder: Path) -> Markup:
    cases = case_table(runs)
    overlays = {name: find_heatmaps(run) for name, run in zip(run_names(runs), runs, strict=True)}
    links = [
        _own_overlays(overlays[row["run"]], slides.get(str(case), (str(case),)))
        for case, row in cases.iterrows()
    ]
    told = cases["rightness"].notna().to_numpy()
    size = min(_EXTREMES, told.sum() // 2)
    judged = [place for place, known in enumerate(told) if known]
    extremes = {"Most wrong": judged[:size], "Most right": judged[::-1][:size]}
    cards = [
        _card(title, cases.iloc[places], [links[place] for place in places], folder)
        for title, places in extremes.items()
        if places
    ]
    rightness = (
        "share of the run's comparable pairs with this case that the risk ranks rightly"
        if "risk" in cases
        else "probability of the true class; of several labels, its mean over the known ones"
        if has_multi_labels(runs[0].predictions)
        else "probability of the true class"
    )
    return join(
        element("p", f"Rightness: {rightness}.", class_="faint"),
        element("div", *cards, class_="cards"),
        _case_table("Every tested case", cases, links, folder, sortable=True),
    )


def _own_overlays(overlays: Mapping[str, Path], slides: Sequence[str]) -> dict[str, Path]:
    return {slide: overlays[slide] for slide in slides if slide in overlays}


def _card(title: str, cases: pd.DataFrame, links: Sequence[Mapping[str, Path]], folder: Path) -> Markup:
    pictures = [
        _link(join(photograph(overlay, f"attention on {slide}"), slide), overlay, folder)
        for one in links
        for slide, overlay in one.items()
    ]
    return element(
        "div",
        _case_table(title, cases, links, folder),
        element("div", *pictures, class_="overlays") if pictures else Markup(),
        class_="card",
    )


def _case_table(
    caption: str,
    cases: pd.DataFrame,
    links: Sequence[Mapping[str, Path]],
    folder: Path,
    *,
    sortable: bool = False,
) -> Markup:
    columns = _told(cases, whole=sortable)
    drawn = any(links)
    rows = [
        [
            case,
            *map(_cell, row[columns]),
            *([join(*_links(overlays, folder)) or "–"] if drawn else []),
        ]
        for (case, row), overlays in zip(cases.iterrows(), links, strict=True)
    ]
    head = ["case", *(name.replace("_", " ") for name in columns), *(["heatmap"] if drawn else [])]
    return table(caption, head, rows, sortable=sortable)


def _told(cases: pd.DataFrame, *, whole: bool) -> list[str]:
    """The columns to show, without what is the same in all rows; few where room is short."""
    first = [name for name in _FIRST if name in cases]
    other = [name for name in map(str, cases) if name not in first]
    return [
        *first,
        *(
            name
            for name in other
            if whole and (name not in ("run", "threshold") or cases[name].nunique() > 1)
        ),
    ]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}" if value.is_integer() else decimals(value)
    return str(value)


def _links(overlays: Mapping[str, Path], folder: Path) -> Iterator[Markup]:
    for slide, overlay in overlays.items():
        yield join(_link(slide, overlay, folder), " ")


def _link(content: str, overlay: Path, folder: Path) -> Markup:
    relative = Path(os.path.relpath(overlay.resolve(), folder.resolve()))
    return element("a", content, href=quote(relative.as_posix()))


def _runs(runs: Sequence[Run]) -> Markup:
    names, records = run_names(runs), [read_record(run.folder) for run in runs]
    made = [dict(_facts(run, record)) for run, record in zip(runs, records, strict=True)]
    tables = [
        _facts_table("How it was made", names, made),
        _facts_table("On which machine", names, [dict(_machine(record)) for record in records]),
        _facts_table(
            "With which versions", names, [record.versions or {"e2e_abmilx": "–"} for record in records]
        ),
    ]
    configs = [
        element("details", element("summary", str(path)), element("pre", path.read_text(encoding="utf-8")))
        for path in (run.folder / name for run in runs for name in ("fit.yaml", "test.yaml"))
        if path.is_file()
    ]
    return join(element("div", *tables, class_="facts"), *configs)


def _facts_table(caption: str, names: Sequence[str], facts: Sequence[Mapping[str, object]]) -> Markup:
    """A row a fact, and a column for all runs of which the same is true."""
    groups: dict[tuple[object, ...], list[str]] = {}
    titles = list(dict.fromkeys(title for one in facts for title in one))
    for name, one in zip(names, facts, strict=True):
        groups.setdefault(tuple(one.get(title, "–") for title in titles), []).append(name)
    rows = [[title, *values] for title, *values in zip(titles, *groups, strict=True)]
    return table(caption, ["run", *map(", ".join, groups.values())], rows)


def _facts(run: Run, record: Record) -> Iterator[tuple[str, object]]:
    """How a run was made; a dash for what it did not record."""
    yield "seed", _known(run.settings.get("seed_everything"))
    yield "fold", _known(run.data.get("fold"))
    yield "precision", record.precision or "–"
    yield "parameters of the encoder", _whole(record.encoder_parameters)
    yield "parameters of the head", _whole(record.head_parameters)
    path = run.folder / "metrics.csv"
    metrics = pd.read_csv(path) if path.is_file() else pd.DataFrame()
    trained = (
        metrics.dropna(subset=["train/loss_epoch"]) if "train/loss_epoch" in metrics else metrics.iloc[:0]
    )
    for name in ("epoch", "step"):
        yield f"{name}s", int(trained[name].max()) + 1 if len(trained) else "–"
    yield "best epoch, from 0 on", _whole(record.best_epoch)
    yield "chosen by", f"{record.monitor} {record.best_value:.4g}" if record.monitor else "–"
    yield "started (UTC)", f"{record.started:%Y-%m-%d %H:%M}" if record.started else "–"
    yield "fit", _duration(record.fit_seconds)
    yield "an epoch of it", _duration(record.epoch_seconds)
    yield "test", _duration(record.test_seconds)
    yield "times resumed", _whole(record.times_resumed)


def _machine(record: Record) -> Iterator[tuple[str, str]]:
    models = [f"{record.gpus.count(name)} × {name}" for name in dict.fromkeys(record.gpus)]
    yield "GPUs", ", ".join(models) or ("none" if record.cpu else "–")
    yield "CPU", record.cpu or "–"
    yield "cores", _whole(record.cores)
    yield "memory, GiB", _whole(record.memory_gib)
    yield "processes", _whole(record.processes)


def _duration(seconds: float) -> str:
    if math.isnan(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def _whole(number: float) -> str:
    return "–" if math.isnan(number) else f"{number:,.0f}"


def _known(value: object) -> object:
    return "–" if value is None else value
