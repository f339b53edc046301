"""A report as one HTML page, which loads nothing from the network."""

import base64
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import pandas as pd
from PIL import Image

from e2e_abmilx.evaluation.faithfulness import RANDOM_ORDERS
from e2e_abmilx.reports.audit import Audit
from e2e_abmilx.reports.audit_tables import EXPLANATION, audit_table, gaps, warnings
from e2e_abmilx.reports.cases import case_table, find_heatmaps, find_views
from e2e_abmilx.reports.faithfulness import faithfulness_sections
from e2e_abmilx.reports.figures import Drawing, draw_figures
from e2e_abmilx.reports.measures import Measure, has_multi_labels, is_regression
from e2e_abmilx.reports.origins import Origin, origins_of
from e2e_abmilx.reports.page_facts import fact_tables
from e2e_abmilx.reports.page_table import Table
from e2e_abmilx.reports.report import Report
from e2e_abmilx.reports.summary import Summary
from e2e_abmilx.reports.tables import common_folder, comparison_title, decimals, explanations, run_names, with_interval
from e2e_abmilx.reports.templates import embed_figure, write_template
from e2e_abmilx.runs.read import Run

_FIRST_COLUMNS = (
    "label", "predicted", "time", "event", "risk", "value", "predicted_value", "absolute_error", "correctness",
)  # fmt: skip
_EXTREMES = 5  # cases shown as the best and as the worst
_OVERLAY_SIDE = 640  # pixels


def write_page(report: Report, audit: Audit, path: Path) -> None:
    """Write the page; links to heatmaps are relative to its folder."""
    origins = {origin: origin.read_cases() for origin in origins_of(report.runs)}
    slides = {case: named for cases in origins.values() for case, named in cases.items()}
    configs = (run.folder / name for run in report.runs for name in ("fit.yaml", "test.yaml"))
    write_template(
        "page.html",
        path,
        title=common_folder(report.summary.runs).name,
        subtitle=_subtitle(report.summary),
        notes=report.notes,
        tiles=list(_tiles(report.summary, report.measures)),
        measure_tables=list(_measure_tables(report)),
        explanation=". ".join([*explanations(report), "–: not defined"]),
        measures=report.measures.values(),
        origins=[_origin(origin, cases) for origin, cases in origins.items()],
        splits=_splits(report.runs),
        **_shortcuts(audit),
        figures=_embed(draw_figures(report)),
        faithfulness=[(one.table, one.sentences, _embed(one.drawings)) for one in faithfulness_sections(report)],
        random_orders=RANDOM_ORDERS,
        **_cases(report.summary.runs, slides, path.parent),
        fact_tables=fact_tables(report.runs),
        configs=[(config, config.read_text(encoding="utf-8")) for config in configs if config.is_file()],
    )


def _embed(drawings: Iterable[Drawing]) -> list[tuple[str, str, str]]:
    """Return title, caption and data URI of figures."""
    return [(title, caption, embed_figure(figure)) for title, caption, figure in drawings]


def _subtitle(summary: Summary) -> str:
    model = summary.runs[0].settings.get("model") or {}
    parts = [model, *((model.get("init_args") or {}).get(name) for name in ("encoder", "head"))]
    names = [part["class_path"].rpartition(".")[2] for part in parts if isinstance(part, dict) and "class_path" in part]
    cases = {case for run in summary.runs for case in run.predictions.index}
    counts = [
        f"{number} {noun}{'s' * (number != 1)}"
        for number, noun in ((len(cases), "tested case"), (len(summary.runs), "run"))
    ]
    return " · ".join([*names, *counts])


def _tiles(summary: Summary, measures: Mapping[str, Measure]) -> Iterator[tuple[str, str, str]]:
    """Yield title, value and uncertainty of the first measures."""
    for name in list(measures)[:4]:
        if summary.pooled:
            value = summary.pooled[name]
            large, small = decimals(value.point), f"95 %: {decimals(value.low)} to {decimals(value.high)}"
        else:
            spread = summary.spread[name]
            large, small = decimals(spread.mean), f"± {decimals(spread.std)}, std over {spread.runs} runs"
        yield measures[name].title, large, small


def _measure_tables(report: Report) -> Iterator[Table]:
    for name, summary in report.summaries.items():
        yield _summary_table(name, summary, report.measures)
    if report.comparison:
        rows = [
            [
                report.measures[name].title, decimals(first), decimals(second), with_interval(change.estimate),
                decimals(change.p_value),
            ]
            for name, (first, second, change) in report.comparison.compared.items()
        ]  # fmt: skip
        yield Table(comparison_title(report.comparison), ["measure", "first", "second", "difference", "p"], rows)


def _summary_table(name: str, summary: Summary, measures: Mapping[str, Measure]) -> Table:
    names = run_names(summary.runs) if len(summary.runs) > 1 else []
    pooled = ["pooled" if names else "tested cases"] if summary.pooled else []
    rows = []
    for key, measure in measures.items():
        row = [measure.title]
        if summary.pooled:
            row.append(with_interval(summary.pooled[key]))
        if names:
            spread = summary.spread[key]
            row.append(f"{decimals(spread.mean)} ± {decimals(spread.std)}")
            row += [with_interval(values[key]) for values in summary.per_run]
        rows.append(row)
    folder = common_folder(summary.runs)
    if folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())
    caption = f"{name}: {folder}" if name else str(folder)
    head = ["measure", *pooled, *(["mean ± std"] if names else []), *names]
    return Table(f"{caption}, with 95 % intervals", head, rows)


def _origin(origin: Origin, cases: Mapping[str, Sequence[str]]) -> tuple[list[tuple[int, str]], Table | None]:
    """Return the numbers of slides and cases, as far as their files can still be read, and the failed slides."""
    cached = origin.read_slides()
    failed = [[slide.slide, slide.reason] for slide in cached.values() if slide.status == "failed"]
    steps = []
    if cached:
        stored = [slide.num_patches for slide in cached.values() if slide.status == "done"]
        steps += [
            (len(cached), f"slides given to the cache {origin.cache}"),
            (len(failed), "failed, because they could not be read"),
            (len(stored), f"cached: {sum(stored):,} patches of all scales"),
        ]
    if cases:
        steps.append((len(cases), f"cases with {sum(map(len, cases.values()))} slides in {origin.labels}"))
    return steps, Table("Failed slides", ["slide", "reason"], failed) if failed else None


def _shortcuts(audit: Audit) -> dict[str, object]:
    return {
        "audit_warnings": warnings(audit),
        "audit_table": audit_table(audit),
        "audit_explanation": EXPLANATION,
        "audit_gaps": gaps(audit),
    }


def _splits(runs: Sequence[Run]) -> Table:
    rows = []
    for name, run in zip(run_names(runs), runs, strict=True):
        sizes = run.splits["split"].value_counts()
        known = ["–", "–"] if run.splits.empty else [sizes.get(split, 0) for split in ("train", "val")]
        rows.append([name, *known, len(run.predictions)])
    return Table("Cases of each run", ["run", "training", "validation", "tested"], rows)


def _cases(runs: Sequence[Run], slides: Mapping[str, Sequence[str]], folder: Path) -> dict[str, object]:
    cases, base = case_table(runs), folder.resolve()
    overlays = {name: find_heatmaps(run) for name, run in zip(run_names(runs), runs, strict=True)}
    own = [
        {slide: path for slide in slides.get(case, (case,)) if (path := overlays[run].get(slide))}
        for case, run in zip(map(str, cases.index), cases["run"], strict=True)
    ]
    links = [
        {slide: quote(Path(os.path.relpath(path.resolve(), base)).as_posix()) for slide, path in one.items()}
        for one in own
    ]
    cases = cases.assign(heatmap=pd.Series(links, cases.index), slide=pd.Series(_views(runs, cases, base), cases.index))
    constant = [name for name in ("run", "threshold") if cases[name].nunique() <= 1]
    columns = [name for name in _FIRST_COLUMNS if name in cases]
    columns += [name for name in map(str, cases) if name not in [*columns, *constant]]
    short = [name for name in columns if name in (*_FIRST_COLUMNS, "heatmap", "slide")]
    judged = cases["correctness"].notna().to_numpy().nonzero()[0].tolist()
    size = min(_EXTREMES, len(judged) // 2)
    extremes = {"Worst predictions": judged[:size], "Best predictions": judged[::-1][:size]}
    cards = [
        (
            _case_table(title, cases[short].iloc[places]),
            [
                (slide, links[place][slide], _embed_overlay(path))
                for place in places
                for slide, path in own[place].items()
            ],
        )
        for title, places in extremes.items()
        if places
    ]
    whole = _case_table("Every tested case", cases[columns], sortable=True)
    return {"cards": cards, "case_table": whole, "correctness": _meaning_of_correctness(cases)}


def _views(runs: Sequence[Run], cases: pd.DataFrame, base: Path) -> list[dict[str, str]]:
    """Return a link to the slides of each case in the copy of its run for the browser, as text and address."""
    views = {
        name: (run.folder / "view" / "index.html", find_views(run))
        for name, run in zip(run_names(runs), runs, strict=True)
    }
    links = []
    for case, run in zip(map(str, cases.index), cases["run"], strict=True):
        page, numbers = views[run]
        address = quote(Path(os.path.relpath(page.resolve(), base)).as_posix())
        links.append({"view": f"{address}#case={numbers[case]}"} if case in numbers else {})
    return links


def _meaning_of_correctness(predictions: pd.DataFrame) -> str:
    if is_regression(predictions):
        return "fraction of the run's cases whose absolute error is no smaller"
    if "risk" in predictions:
        return "fraction of the run's comparable pairs with this case that the risk orders correctly"
    if has_multi_labels(predictions):
        return "probability of the true label, mean over the known labels"
    return "probability of the true class"


def _case_table(caption: str, cases: pd.DataFrame, *, sortable: bool = False) -> Table:
    cases = cases.drop(columns=[name for name in ("heatmap", "slide") if not any(cases[name])])
    rows = [[case, *map(_cell, row)] for case, *row in cases.itertuples(name=None)]
    return Table(caption, ["case", *(name.replace("_", " ") for name in map(str, cases))], rows, sortable)


def _cell(value: object) -> object:
    if isinstance(value, float):
        return f"{value:g}" if value.is_integer() else decimals(value)
    return value if isinstance(value, dict) else str(value)


def _embed_overlay(path: Path) -> str:
    """Return a small copy of an image as a data URI."""
    with Image.open(path) as picture:
        picture.thumbnail((_OVERLAY_SIDE, _OVERLAY_SIDE))
        picture.convert("RGB").save(file := io.BytesIO(), "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
