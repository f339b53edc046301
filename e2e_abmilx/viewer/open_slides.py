"""Open slide files: a few at a time, shared by threads."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from e2e_abmilx.slides import Slide


class OpenSlides:
    """Slides that are opened when they are first used, and closed when too many others were used since.

    Args:
        most: Slides that stay open while nobody reads them.
    """

    def __init__(self, most: int = 4) -> None:
        self._most = most
        self._slides: OrderedDict[Path, Slide] = OrderedDict()
        self._readers: dict[Path, int] = {}
        self._lock = Lock()

    @contextmanager
    def borrow(self, path: Path) -> Iterator[Slide]:
        """Yield a slide that stays open while the ``with`` block runs; any number of threads may borrow it.

        Raises:
            SlideError: It cannot be opened.
        """
        with self._lock:  # also while a slide is opened, so that two threads never open it twice
            slide = self._slides.get(path) or Slide(path)
            self._slides[path] = slide
            self._slides.move_to_end(path)
            self._readers[path] = self._readers.get(path, 0) + 1
            self._close_others()
        try:
            yield slide
        finally:
            with self._lock:
                self._readers[path] -= 1
                self._close_others()

    def close(self) -> None:
        """Close all slides that nobody reads."""
        with self._lock:
            self._close_others(most=0)

    def _close_others(self, most: int | None = None) -> None:
        """Close the slides that were used least recently and that nobody reads, down to ``most``."""
        for path in list(self._slides):
            if len(self._slides) <= (self._most if most is None else most):
                return
            if not self._readers.get(path):
                self._slides.pop(path).close()
                self._readers.pop(path, None)
