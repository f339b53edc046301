"""Time, memory and utilisation, on a GPU and on a CPU."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import torch


def prepare(device: str) -> torch.device:
    """Set torch up as each run of the library does.

    Args:
        device: ``"cuda"`` or ``"cpu"``.

    Raises:
        RuntimeError: There is no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("torch finds no CUDA device here; --device cpu --tiny rehearses on a CPU")
    torch.set_float32_matmul_precision("high")
    return torch.device(device, torch.cuda.current_device()) if device == "cuda" else torch.device(device)


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what was queued; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(run: Callable[[], object], device: torch.device, *, times: int, warm_up: int) -> float:
    """Mean seconds of a call, the first few left out."""
    for _ in range(warm_up):
        run()
    synchronize(device)
    started = time.perf_counter()
    for _ in range(times):
        run()
    synchronize(device)
    return (time.perf_counter() - started) / times


class Peak:
    """The most memory that torch held on a CUDA device inside a ``with`` block.

    Attributes:
        gb: In all, GB; None on a CPU.
        extra_gb: Above what it held before.
    """

    gb: float | None = None
    extra_gb: float | None = None

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._before = 0

    def __enter__(self) -> Self:
        if self.device.type == "cuda":
            synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self.device.type == "cuda":
            synchronize(self.device)
            peak = torch.cuda.max_memory_allocated(self.device)
            self.gb, self.extra_gb = peak / 1e9, (peak - self._before) / 1e9


class Utilisation:
    """Share of the time in which a GPU ran a kernel, as its driver counts it, while this is watching.

    Args:
        device: The device; a CPU is not watched.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._samples: list[int] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        if self.device.type == "cuda":
            self._thread.start()

    def stop(self) -> float | None:
        """Stop, and return the mean in percent; None where the driver could not be asked."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()
        return sum(self._samples) / len(self._samples) if self._samples else None

    def _watch(self) -> None:
        while not self._done.wait(0.2):
            try:
                self._samples.append(torch.cuda.utilization(self.device))
            except Exception as error:  # noqa: BLE001 - no library of the driver's, or one that does not tell
                print(f"utilisation is unknown: {error}", flush=True)
                return
