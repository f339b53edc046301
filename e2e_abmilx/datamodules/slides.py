"""Bags of patches from cached slides."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from torch.utils.data import Dataset

from e2e_abmilx.cache import cache_slides
from e2e_abmilx.cache.manifest import MANIFEST
from e2e_abmilx.cache.thumbnails import read_thumbnail_hashes
from e2e_abmilx.cohort import Case, CohortError
from e2e_abmilx.data.bag import Bag
from e2e_abmilx.data.draws import AttentionDraw, PatchDraw, UniformDraw
from e2e_abmilx.data.inputs import EvalScales, PatchInput
from e2e_abmilx.data.jpegs import import_decoders
from e2e_abmilx.data.loaders import BagLoader
from e2e_abmilx.data.samplers import EpochSampler
from e2e_abmilx.data.seen_cases import Marks
from e2e_abmilx.data.slide_bags import RandomBags, WholeSlides, check_stores
from e2e_abmilx.datamodules.base import BagDataModule
from e2e_abmilx.datamodules.model_attention import attention_of
from e2e_abmilx.errors import InputError
from e2e_abmilx.store import CohortIndex, PatchStore
from e2e_abmilx.store.cohort_index import INDEX
from e2e_abmilx.store.disk_cache import PARTS, DiskCache
from e2e_abmilx.store.locations import Location, as_location, store_path


class SlideDataModule(BagDataModule):
    """Bags of patches from cached slides, for end-to-end training.

    Training bags are random multi-scale draws; evaluation uses every patch, in parts. If ``slides`` is given, slides
    that are not in the cache are cached first.

    Args:
        cache: Folder of patch stores, or its URL, such as ``s3://bucket/cohort``, after ``e2e-abmilx push``.
        labels: Label table (CSV), as in :class:`~e2e_abmilx.cohort.CohortPlan`.
        slides: Slides to cache first: a folder, a file or a CSV.
        mpp: µm per pixel of each scale to cache.
        patch_size: Side of a patch to cache, in pixels.
        assume_mpp: Level-0 µm per pixel of slides that state none.
        patches_per_bag: s, patches of a training bag.
        coarse_fraction: 1/r, the fraction of a bag that is drawn from the coarser scales.
        draw: How the patches of a training bag are drawn: uniformly by default, or by a
            :class:`~e2e_abmilx.data.draws.RunDraw` (from a bucket), :class:`~e2e_abmilx.data.draws.RegionalDraw` or
            :class:`~e2e_abmilx.data.draws.AttentionDraw`.
        padding: Treatment of a case with fewer patches: ``"mask"`` pads its bag and masks the padding,
            ``"duplicate"`` repeats random patches, as the authors do.
        eval_scales: Scales used in evaluation: the ``"finest"``, as in the paper, or ``"all"``.
        eval_chunk_size: Patches encoded at once in evaluation.
        decode_on_device: Send JPEG streams to a CUDA device, which decodes them with nvJPEG through torchcodec (the
            extra ``gpu``); useful if the device waits for patches. For other devices one process of the CPU decodes.
        local_cache: Folder on a local disk, new or empty at first, that keeps patches read from a bucket for later
            epochs and runs; by default none are kept. All processes and runs of a machine may share it. Patches are
            kept in blocks of 16, so draw them with a ``RunDraw``.
        local_cache_gb: Largest size of that folder, GB; the patches not used for longest are removed.
        **cohort: All other arguments of :class:`BagDataModule`.
    """

    def __init__(
        self,
        cache: str | Path,
        labels: Path | None = None,
        *,
        slides: Path | None = None,
        mpp: tuple[float, ...] = (0.5, 1.0),
        patch_size: int = 256,
        assume_mpp: float | None = None,
        patches_per_bag: int = 512,
        coarse_fraction: float = 0.25,
        draw: PatchDraw | None = None,
        padding: Literal["mask", "duplicate"] = "mask",
        eval_scales: EvalScales = "finest",
        eval_chunk_size: int = 256,
        decode_on_device: bool = False,
        local_cache: Path | None = None,
        local_cache_gb: float = 100.0,
        **cohort: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(labels, **cohort)
        for name, value in {"patches_per_bag": patches_per_bag, "eval_chunk_size": eval_chunk_size}.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it counts patches and must be at least 1")
        if not 0 <= coarse_fraction < 1:
            raise ValueError(f"coarse_fraction is {coarse_fraction}; it is a fraction of the bag and must be in [0, 1)")
        self.cache, self.slides = as_location(cache), slides
        if slides is not None and not isinstance(self.cache, Path):
            raise InputError(
                f"data.slides is not cached into a bucket by the run that trains; run `e2e-abmilx cache --slides {slides}"
                f" --out {self.cache}` first, with the same mpp and patch_size, and leave data.slides out"
            )
        self.mpp, self.patch_size, self.assume_mpp = mpp, patch_size, assume_mpp
        self.patches_per_bag, self.coarse_fraction, self.padding = patches_per_bag, coarse_fraction, padding
        self.draw = draw or UniformDraw()
        self.eval_scales, self.eval_chunk_size = eval_scales, eval_chunk_size
        self.decode_on_device = decode_on_device
        self.disk = _disk_cache(self.cache, local_cache, local_cache_gb)
        self._index: CohortIndex | None = None

    def prepare_data(self) -> None:
        """Cache the slides that are not in the cache yet."""
        if self.slides is not None and isinstance(self.cache, Path):
            cache_slides(
                self.slides,
                self.cache,
                mpp=self.mpp,
                patch_size=self.patch_size,
                assume_mpp=self.assume_mpp,
                workers=(os.cpu_count() or 1) if self.num_workers is None else max(1, self.num_workers),
            )

    def available(self) -> tuple[Location, list[str]]:
        """Return the cache and the slides that have a store in it."""
        self._index = CohortIndex(self.cache)
        stored = self._index.slides()
        if not stored:
            raise CohortError(f"{self.cache} holds no patch store; run `e2e-abmilx cache` first, or give data.slides")
        return self.cache, stored

    def check(self, cases: Sequence[Case]) -> None:
        """Refuse stores that are empty or differ in scales or patch size, and a CUDA device that cannot decode."""
        check_stores(cases, self._stores())
        if self.decode_on_device and self.trainer and self.trainer.strategy.root_device.type == "cuda":
            import_decoders()

    def describe_input(self) -> PatchInput:
        """Return size and resolution of the patches, which all stores have in common."""
        store = PatchStore(store_path(self.cache, self.read_cases[0].slides[0]))
        return PatchInput.of(store, self.eval_scales, self.eval_chunk_size)

    def slide_marks(self, cases: Sequence[Case]) -> Marks:
        """Return the perceptual hash of the thumbnail of each slide."""
        return read_thumbnail_hashes(self._stores(), [slide for case in cases for slide in case.slides])

    def random_bags(self, split: str) -> Dataset[Bag]:
        """Return random multi-scale bags."""
        return RandomBags(
            self.cases[split],
            self.targets[split],
            self.cache,
            patches_per_bag=self.patches_per_bag,
            coarse_fraction=self.coarse_fraction,
            seed=self.seed,
            padding=self.padding,
            encoded=self.decode_on_device,
            local_cache=self.disk,
            draw=self.draw,
        )

    def whole_bags(self, split: str) -> tuple[Dataset[Bag], Sequence[int]]:
        """Return whole slides, in parts."""
        bags = WholeSlides(
            self.cases[split],
            self.targets[split],
            self.cache,
            chunk_size=self.eval_chunk_size,
            scales=self.eval_scales,
            encoded=self.decode_on_device,
            local_cache=self.disk,
            index=self._stores(),
        )
        return bags, [part.case for part in bags.parts]

    def train_dataloader(self) -> BagLoader:
        """Return the shuffled bags of the training split, drawn by the current model's attention if ``draw`` asks for it.

        Raises:
            InputError: Lightning would replace the sampler, and an ``AttentionDraw`` cannot follow the epochs.
        """
        loader, draw = super().train_dataloader(), self.draw
        if isinstance(draw, AttentionDraw):
            if getattr(self.trainer, "overfit_batches", 0):
                raise InputError(
                    "trainer.overfit_batches repeats the bags of the first epoch, which AttentionDraw draws uniformly; leave"
                    " data.draw or trainer.overfit_batches out"
                )
            sampler = loader.sampler
            assert isinstance(sampler, EpochSampler)
            loader.before_pass = lambda: self._follow_model(draw, sampler)
        return loader

    def state_dict(self) -> dict[str, Any]:
        """Return the progress of training, and the attention that the bags of the epoch are drawn by."""
        state = super().state_dict()
        return {**state, "draw": self.draw.state_dict()} if state and isinstance(self.draw, AttentionDraw) else state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume training from a state."""
        progress = dict(state_dict)
        drawn_by = progress.pop("draw", None)
        if drawn_by is not None and isinstance(self.draw, AttentionDraw):
            self.draw.load_state_dict(drawn_by)
        super().load_state_dict(progress)

    def _stores(self) -> CohortIndex:
        """Return the index of the cache that the setup has read."""
        self._index = self._index or CohortIndex(self.cache)
        return self._index

    def _follow_model(self, draw: AttentionDraw, sampler: EpochSampler) -> None:
        """Score the cases that this epoch draws, unless a checkpoint has brought their attention."""
        if draw.epoch != sampler.epoch or not sampler.epoch:
            draw.attention, draw.epoch = {}, sampler.epoch
        if not sampler.epoch:
            return
        if self.trainer is None:
            raise InputError("AttentionDraw draws by the attention of a model in training; fit with a Trainer")
        cases, targets = self.cases["train"], self.targets["train"]
        missing = sorted({drawn.case for drawn in sampler if cases[drawn.case].id not in draw.attention})
        bags = WholeSlides(
            [cases[index] for index in missing],
            [targets[index] for index in missing],
            self.cache,
            chunk_size=self.eval_chunk_size,
            scales="all" if self.coarse_fraction else "finest",
            encoded=self.decode_on_device,
            local_cache=self.disk,
            index=self._stores(),
        )
        parts = BagLoader(bags, batch_size=1, **self._reading(bags, 1))
        draw.attention = {**draw.attention, **attention_of(self.trainer, parts)}


def _disk_cache(cache: Location, folder: Path | None, gb: float) -> DiskCache | None:
    """Return the cache on disk of what is read from a bucket; refuse settings that cannot be meant."""
    if folder is None:
        return None
    if isinstance(cache, Path):
        raise InputError(
            f"data.local_cache keeps what is read from a bucket, and data.cache is the folder {cache}; leave it out"
        )
    place = as_location(folder)
    if not isinstance(place, Path):
        raise InputError(f"data.local_cache is {place}; it must be a folder on a local disk")
    place = place.absolute()
    around = next(path for path in (place, *place.parents) if os.path.exists(path))
    for path in (around, *around.parents):
        if path.suffix == ".zarr" or any(os.path.exists(path / name) for name in (INDEX, MANIFEST)):
            raise InputError(f"data.local_cache is {place}, in the cache of patch stores {path}; give another folder")
    largest = shutil.disk_usage(around).total / 1e9
    if not 1 <= gb <= largest:
        raise InputError(
            f"data.local_cache_gb is {gb}; it must be at least 1, because each of {PARTS} parts holds blocks of 16"
            f" patches, and at most {largest:.0f}, the size of the disk of {around}"
        )
    return DiskCache(place, round(gb * 1e9))
