"""The command ``e2e-abmilx view``: it serves the page until it is interrupted, or writes a static copy."""

from pathlib import Path

from e2e_abmilx.errors import InputError
from e2e_abmilx.viewer.export import export_cases
from e2e_abmilx.viewer.viewing import view as start

PORT = 8642


def view(
    run: Path,
    compare: Path | None = None,
    slides: Path | None = None,
    port: int = PORT,
    host: str = "127.0.0.1",
    export: Path | None = None,
    cases: list[str] | str | None = None,
) -> None:
    """Show the tested cases of a run in the browser: their slides, and what the model looked at, most wrong first.

    Open the printed address, which holds a random token. What you note about cases is kept in review.csv in the folder of
    the run. Ctrl-C ends the command.

    Args:
        run: Folder of a tested run, or one that predict wrote.
        compare: A second run, whose maps are shown beside those of the first.
        slides: Folder that slide files have been moved to.
        port: Port of the server; 0 for any free one.
        host: Address that the server listens on. With another one than 127.0.0.1, whoever can reach it and knows the token
            sees the slides.
        export: Write a static copy into this folder instead, which opens without a server: index.html.
        cases: Names of the cases of the copy, such as case-1,case-2; by default all with stored attention. Names with commas
            are written as a list, such as '["case 1, left", case-2]'.

    Raises:
        InputError: A folder holds no predictions, or the port is taken.
    """
    if export is not None:
        chosen = cases.split(",") if isinstance(cases, str) else cases
        print(export_cases(run, export, compare=compare, slides=slides, cases=chosen))
        return
    if cases is not None:
        raise InputError("cases chooses what a copy holds; add --export FOLDER, or leave it out to see all cases")
    with start(run, compare, slides, port=port, host=host) as viewer:
        print(f"{viewer.url}\nopen this address in a browser; Ctrl-C ends the viewer", flush=True)
        try:
            viewer.wait()
        except KeyboardInterrupt:
            print("\nthe viewer has ended")
