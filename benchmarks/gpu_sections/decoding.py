"""JPEG decoding by CPU workers and by the device: speed, equality, and the safety of queued reads."""

import gc
import itertools
import time
from typing import NamedTuple

import torch

from e2e_abmilx import SlideDataModule
from e2e_abmilx.data.jpegs import Jpegs, import_decoders
from e2e_abmilx.errors import InputError
from e2e_abmilx.store.codec import JPEG_QUALITY, encode_patch
from gpu_sections.loop import fit
from gpu_sections.measure import prepare, seconds, synchronize
from gpu_sections.model import BATCHES, TINY_BATCHES, Batch, make_task
from gpu_sections.queued_reads import count_overwritten, decoders
from gpu_sections.rows import Rows
from gpu_sections.settings import Settings
from gpu_sections.stores import textures, write_cohort


class Sizes(NamedTuple):
    """The sizes of the measurements.

    Attributes:
        batch: Sizes of a training batch; without training the loader reads one bag at a time.
        workers: Numbers of data loading processes.
        rounds: Bags per process, after the bags that are ready at the start.
        steps: Steps of training.
        repeats: Repetitions of decoding alone, and of the search for overwritten reads.
    """

    batch: Batch
    workers: tuple[int, ...]
    rounds: int
    steps: int
    repeats: int


FULL, TINY = Sizes(BATCHES[0], (4, 8, 16), 12, 30, 30), Sizes(TINY_BATCHES[0], (1, 2), 2, 2, 2)


def run(settings: Settings, rows: Rows) -> None:
    """Measure reading and decoding, then training with few readers; then search for overwritten reads."""
    decoding = _Decoding(settings, rows, TINY if settings.tiny else FULL)
    decoding.describe()
    for workers in decoding.sizes.workers:
        with rows.guard(f"{workers} CPU workers"):
            decoding.read(workers, on_device=False)
    ways = [False, True] if decoding.device_decodes() else [False]
    if True in ways:
        with rows.guard("streams read by the workers"):
            decoding.read(decoding.sizes.workers[0], on_device=True)
        with rows.guard("streams in memory"):
            decoding.decode()
    for on_device in ways:
        with rows.guard(f"training, data.decode_on_device {on_device}"):
            decoding.train(on_device=on_device)
    if True in ways:
        decoding.compare()


class _Decoding:
    """The measurements on one cohort."""

    def __init__(self, settings: Settings, rows: Rows, sizes: Sizes) -> None:
        self.settings, self.rows, self.sizes = settings, rows, sizes
        batch, workers = sizes.batch, sizes.workers
        self.device = prepare(settings.device)
        self.decoder = "device" if settings.device == "cuda" else "main process"
        self.warm_up = 2 * workers[0]
        self.labels = write_cohort(
            settings.scratch / "cache",
            cases=max(batch.bags * (sizes.steps + self.warm_up), workers[-1] * (sizes.rounds + 2)),
            patches=batch.patches,
            side=batch.stored,
        )
        pixels = textures(min(128, batch.patches), batch.stored)
        jpegs = [encode_patch(patch, JPEG_QUALITY, "444") for patch in pixels]
        self.streams = Jpegs.of(list(itertools.islice(itertools.cycle(jpegs), batch.patches)))

    def describe(self) -> None:
        """Describe the streams."""
        kilobytes = len(self.streams.data) / len(self.streams.sizes) / 1000
        side = self.sizes.batch.stored
        self.rows.note(
            f"Streams have {side} px and {kilobytes:.1f} kB on average; a bag is counted when its pixels are on the"
            " device."
        )

    def device_decodes(self) -> bool:
        """Report whether the device can decode; if it cannot, add a note with the reason."""
        if self.settings.device != "cuda":
            self.rows.note("No CUDA device: the main process decodes instead, and no reads are queued.")
            return True
        try:
            import_decoders()
        except InputError as error:
            self.rows.note(f"Skipped: {error}")
            return False
        return True

    def read(self, workers: int, *, on_device: bool) -> None:
        """Measure the loader without training, in its steady state."""
        data = SlideDataModule(
            self.labels.parent,
            self.labels,
            patches_per_bag=self.sizes.batch.patches,
            num_workers=workers,
            decode_on_device=on_device,
        )
        data.setup("fit")
        loader = data.train_dataloader()
        bags = iter(loader)
        for _ in range(loader.num_workers * (loader.prefetch_factor or 1)):
            data.transfer_batch_to_device(next(bags), self.device, 0)
        synchronize(self.device)
        started, count = time.perf_counter(), loader.num_workers * self.sizes.rounds
        for _ in range(count):
            data.transfer_batch_to_device(next(bags), self.device, 0)
        synchronize(self.device)
        rate = count * self.sizes.batch.patches / (time.perf_counter() - started)
        self._add(self.decoder if on_device else "readers", loader.num_workers, "reading alone", rate)
        del bags, loader
        gc.collect()  # ends the data loading processes

    def decode(self) -> None:
        """Measure the decoding of streams in memory."""
        each = seconds(lambda: self.streams.decode(self.device), self.device, times=self.sizes.repeats, warm_up=2)
        self._add(self.decoder, None, "decoding alone", len(self.streams.sizes) / each)

    def train(self, *, on_device: bool) -> None:
        """Measure training with the smallest number of data loading processes."""
        batch = self.sizes.batch
        loop = fit(
            make_task(batch),
            self.labels,
            batch,
            device=self.settings.device,
            precision="bf16-mixed",
            steps=self.sizes.steps,
            warm_up=self.warm_up,
            num_workers=self.sizes.workers[0],
            decode_on_device=on_device,
        )
        decoder = self.decoder if on_device else "readers"
        what = f"training {batch.encoder}"
        self._add(decoder, loop.workers, what, batch.size / loop.seconds, 100 * loop.waiting)

    def compare(self) -> None:
        """Compare the pixels of device and CPU, and search for overwritten reads."""
        with self.rows.guard("pixels of the device"):
            theirs = self.streams.decode(self.device).cpu().short()
            difference = (theirs - self.streams.decode(torch.device("cpu")).short()).abs()
            mean, most = float(difference.float().mean()), int(difference.max())
            self.rows.facts(
                {f"{self.decoder} against CPU": f"mean difference {mean:.3f}, largest {most} of 255 levels"}
            )
        if self.settings.device != "cuda":
            return
        for name, decode in decoders(self.device).items():
            with self.rows.guard(f"queued reads, {name}"):
                overwritten = count_overwritten(decode, self.streams, self.device, times=self.sizes.repeats)
                self.rows.facts({f"queued reads overwritten, {name}": f"{overwritten} of {self.sizes.repeats}"})
                if overwritten and name == "the library":
                    self.rows.fail(
                        "the library's decoding on the device overwrites tensors that queued kernels still read"
                    )

    def _add(self, decoder: str, readers: int | None, what: str, rate: float, waiting: float | None = None) -> None:
        self.rows.add(
            {"decoded by": decoder, "readers": readers, "measured": what, "patches/s": rate, "waiting %": waiting}
        )
