"""The commands ``e2e-abmilx report``, ``crossval`` and ``compare``: what runs say, as text."""

from collections.abc import Sequence
from pathlib import Path

from e2e_abmilx.errors import InputError
from e2e_abmilx.reports.models import compare_models, markdown, write_models
from e2e_abmilx.reports.report import make_report
from e2e_abmilx.reports.tables import common_folder, text, write_csv, write_json
from e2e_abmilx.runs.compare import fit_models
from e2e_abmilx.runs.crossval import fit_folds
from e2e_abmilx.runs.read import Run, find_runs, read_run


def report(
    runs: Path | list[Path],
    against: Path | list[Path] | None = None,
    out: Path | None = None,
    html: bool = False,
) -> str:
    """Tell what runs say: each one's measures, their mean ± std, those of all test cases, with 95 % intervals.

    ``report.csv`` and ``report.json`` hold the same numbers, and more.

    Args:
        runs: Folders of runs that ended with their test, or of cross-validations, whose folds they then are.
        against: Runs to compare with, by the paired bootstrap on the cases that both have tested.
        out: Where to write; by default the folder that all of ``runs`` lie in.
        html: Whether to write ``report.html`` too: a page with figures, all cases and the settings of the runs.

    Returns:
        The tables, as text.

    Raises:
        InputError: A run is unfinished or leaks, or the runs cannot be told of together.
    """
    ours, theirs = _read_runs(runs), _read_runs(against or [])
    if not ours:
        raise InputError("no run is named; name the folder of at least one")
    made = make_report(ours, theirs)
    folder = common_folder(ours) if out is None else out
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(made, folder / "report.csv")
    write_json(made, folder / "report.json")
    if html:
        # matplotlib is slow to import, and tables do without it
        from e2e_abmilx.reports.page import write_page

        write_page(made, folder / "report.html")
    return text(made)


def crossval(words: Sequence[str]) -> str:
    """Fit and test every fold as :func:`~e2e_abmilx.runs.crossval.fit_folds` does, then report on all of them.

    Args:
        words: ``--config`` and other options of ``fit``, and ``--folds``.

    Returns:
        The report, as text.
    """
    root, folders = fit_folds(words)
    return report(folders, out=root)


def compare(words: Sequence[str]) -> str:
    """Fit and test models as :func:`~e2e_abmilx.runs.compare.fit_models` does, then put them into one table.

    Args:
        words: ``--configs``, ``--heads``, ``--seeds``, ``--out`` and options of ``fit`` that all runs share.

    Returns:
        The table as Markdown, which is also in ``<out>/models.md``; ``<out>/models.csv`` holds its numbers.
    """
    out, folders = fit_models(words)
    table = compare_models({name: [read_run(folder) for folder in runs] for name, runs in folders.items()})
    text_of_table = markdown(table)
    (out / "models.md").write_text(f"{text_of_table}\n", encoding="utf-8")
    write_models(table, out / "models.csv")
    return text_of_table


def _read_runs(folders: Path | list[Path]) -> list[Run]:
    return [read_run(folder) for folder in find_runs([folders] if isinstance(folders, Path) else folders)]
