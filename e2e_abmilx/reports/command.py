"""The commands ``e2e-abmilx report``, ``crossval`` and ``compare``, which return their results as text."""

from collections.abc import Sequence
from pathlib import Path

from e2e_abmilx.errors import InputError
from e2e_abmilx.reports.audit import audit_shortcuts
from e2e_abmilx.reports.audit_tables import audit_text, write_audit
from e2e_abmilx.reports.measures import refuse_unknown_measure
from e2e_abmilx.reports.models import markdown, tabulate_models, write_models
from e2e_abmilx.reports.report import make_report
from e2e_abmilx.reports.tables import common_folder, text, write_csv, write_json
from e2e_abmilx.runs.compare import fit_models, read_options
from e2e_abmilx.runs.crossval import fit_folds
from e2e_abmilx.runs.read import Run, find_runs, read_run


def report(
    runs: Path | list[Path],
    against: Path | list[Path] | None = None,
    out: Path | None = None,
    html: bool = False,
    groups: list[str] | None = None,
) -> str:
    """Report the measures of each run, their mean ± std, and those of all test cases, with 95 % intervals.

    The same numbers, and more, are written to ``report.csv`` and ``report.json``. The audit for shortcuts, in
    ``shortcuts.csv``, tells how well site, scanner, batch or colours alone predict the truth, and whether the embeddings
    tell sites apart.

    Args:
        runs: Folders of tested runs, or of cross-validations, which stand for their folds.
        against: Runs to compare with, by the paired bootstrap on the cases that both have tested.
        out: Folder of the files; by default the folder that contains all ``runs``.
        html: Whether to also write ``report.html``, a page with figures, all cases and the settings of the runs.
        groups: Columns of the label table to look for shortcuts in, besides those with usual names such as site or
            scanner.

    Returns:
        The tables, as text.

    Raises:
        InputError: If a run is unfinished or leaks, the runs cannot be reported together, or the label table lacks one
            of the groups.
    """
    ours, theirs = _read_runs(runs), _read_runs(against or [])
    if not ours:
        raise InputError("no run is named; name the folder of at least one")
    content = make_report(ours, theirs)
    audit = audit_shortcuts(content, groups or ())
    folder = common_folder(ours) if out is None else out
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(content, folder / "report.csv")
    write_json(content, folder / "report.json")
    write_audit(audit, folder / "shortcuts.csv")
    if html:
        # matplotlib is slow to import, and tables do not need it
        from e2e_abmilx.reports.page import write_page

        write_page(content, audit, folder / "report.html")
    return f"{text(content)}\n\n{audit_text(audit)}"


def crossval(words: Sequence[str]) -> str:
    """Fit and test every fold as :func:`~e2e_abmilx.runs.crossval.fit_folds`, and return the report on all of them."""
    root, folders = fit_folds(words)
    return report(folders, out=root)


def compare(words: Sequence[str]) -> str:
    """Fit and test models as :func:`~e2e_abmilx.runs.compare.fit_models`, and return one table of all as Markdown.

    The table is also written to ``<out>/models.md``, and its numbers to ``<out>/models.csv``.

    Args:
        words: ``--configs``, ``--heads`` or ``--variants``, ``--seeds``, ``--measure``, ``--out``, and options of ``fit``
            that all runs share.

    Raises:
        InputError: As in ``fit_models``, or the runs do not have the measure.
    """
    options, shared = read_options(words)
    if options.measure is not None:
        refuse_unknown_measure(options.measure)  # before the fits, which may take days
    folders = fit_models(options, shared)
    runs_of = {name: [read_run(folder) for folder in runs] for name, runs in folders.items()}
    table = tabulate_models(runs_of, options.measure)
    shown = markdown(table)
    (options.out / "models.md").write_text(f"{shown}\n", encoding="utf-8")
    write_models(table, options.out / "models.csv")
    return shown


def _read_runs(folders: Path | list[Path]) -> list[Run]:
    return [read_run(folder) for folder in find_runs([folders] if isinstance(folders, Path) else folders)]
