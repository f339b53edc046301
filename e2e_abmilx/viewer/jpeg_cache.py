"""A cache of JPEG streams that is bounded by their bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock


class JpegCache:
    """The streams that were used last, shared by threads.

    Args:
        max_bytes: Largest sum of their lengths.

    Attributes:
        num_bytes: Present sum of their lengths.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.num_bytes = max_bytes, 0
        self._streams: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """Return the stream of a key; make it if it is not here, without holding up other threads meanwhile."""
        with self._lock:
            if key in self._streams:
                self._streams.move_to_end(key)
                return self._streams[key]
        stream = make()
        with self._lock:
            self.num_bytes += len(stream) - len(self._streams.pop(key, b""))
            self._streams[key] = stream
            while self.num_bytes > self.max_bytes:
                self.num_bytes -= len(self._streams.popitem(last=False)[1])
        return stream
