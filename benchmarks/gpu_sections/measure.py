"""Measurement of time, memory and utilisation, on a GPU and on a CPU."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import torch


def prepare(device: str) -> torch.device:
    """Set up torch as every run of the library does.

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
    """Wait until a device has finished its queue; a CPU has none."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(run: Callable[[], object], device: torch.device, *, times: int, warm_up: int) -> float:
    """Return the mean seconds per call, after ``warm_up`` calls that do not count."""
    for _ in range(warm_up):
        run()
    synchronize(device)
    started = time.perf_counter()
    for _ in range(times):
        run()
    synchronize(device)
    return (time.perf_counter() - started) / times


class Peak:
    """The peak memory of torch on a CUDA device inside a ``with`` block.

    Attributes:
        gb: Total, GB; None on a CPU.
        extra_gb: Above the memory held before, GB; None on a CPU.
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
    """The fraction of time in which a GPU runs kernels, as reported by its driver.

    Args:
        device: The device; a CPU is not measured.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._samples: list[int] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Start sampling."""
        if self.device.type == "cuda":
            self._thread.start()

    def stop(self) -> float | None:
        """Stop sampling and return the mean in percent; None if the driver does not report it."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()
        return sum(self._samples) / len(self._samples) if self._samples else None

    def _watch(self) -> None:
        while not self._done.wait(0.2):
            try:
                self._samples.append(torch.cuda.utilization(self.device))
            except Exception as error:  # noqa: BLE001 - the driver's library is missing or fails
                print(f"utilisation is unknown: {error}", flush=True)
                return
