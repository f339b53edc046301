"""The viewer for notebooks and scripts."""

import html
import logging
from pathlib import Path
from typing import Self

from e2e_abmilx.viewer.routes import Routes
from e2e_abmilx.viewer.server import Server, is_loopback
from e2e_abmilx.viewer.viewed_run import ViewedRun

logger = logging.getLogger(__name__)

_HEIGHT = 800  # pixels of the frame in a notebook


class Viewer:
    """A viewer that runs in the background until it is closed or the process ends; a notebook shows its page.

    Attributes:
        url: The address of the page. It holds a random token: whoever knows it, and can reach the server, sees the slides.
    """

    def __init__(self, server: Server, viewed: ViewedRun) -> None:
        self.url = server.url
        self._server, self._viewed = server, viewed
        server.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Viewer({self.url})"

    def _repr_html_(self) -> str:
        address = html.escape(self.url)
        return f'<iframe src="{address}" width="100%" height="{_HEIGHT}" style="border: 0" title="viewer"></iframe>'

    def wait(self) -> None:
        """Wait until the viewer is closed."""
        self._server.wait()

    def close(self) -> None:
        """Stop the server and close the slides."""
        self._server.close()
        self._viewed.close()


def view(
    run: str | Path,
    compare: str | Path | None = None,
    slides: str | Path | None = None,
    *,
    port: int = 0,
    host: str = "127.0.0.1",
) -> Viewer:
    """Show the cases of a run, their slides and the attention to them, most wrong first; in a notebook, in the cell.

    Args:
        run: Folder of a tested run, or one that ``predict`` wrote.
        compare: A second run, whose maps are shown beside those of the first.
        slides: Folder that slide files have been moved to.
        port: Port of the server; 0 for any free one.
        host: Address that the server listens on; with another one than 127.0.0.1 whoever can reach it and knows the token
            sees the slides.

    Raises:
        InputError: A folder holds no predictions, or the port is taken.
    """
    folders = [None if folder is None else Path(folder) for folder in (compare, slides)]
    viewed = ViewedRun(Path(run), *folders)
    if not any(one.has_map(name) for one in viewed.runs for name in one.names):
        reason = viewed.runs[0].read_map(viewed.names[0])[1]
        logger.warning(
            "none of %d cases has stored attention, so slides are shown without: %s", len(viewed.names), reason
        )
    server = Server(Routes(viewed), host, port)
    if not is_loopback(host):
        logger.warning("the server listens on %s: anyone who can reach it and knows the token sees the slides", host)
    return Viewer(server, viewed)
