"""What the encoder says of every patch, as files to train heads on."""

import json
import logging
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor, nn

from e2e_abmilx.data.features import (
    Attributes,
    FeatureError,
    TridentWriter,
    describe_patches,
    read_attributes,
)
from e2e_abmilx.data.loaders import Padded
from e2e_abmilx.data.slide_bags import WholeSlides
from e2e_abmilx.datamodules import SlideDataModule
from e2e_abmilx.errors import InputError
from e2e_abmilx.store import PatchStore
from e2e_abmilx.tasks import BagTask

logger = logging.getLogger(__name__)


class FeatureWriter(BasePredictionWriter):
    """Write ``features/<slide>.h5`` into ``trainer.default_root_dir`` for each slide that is predicted.

    The files are as TRIDENT's: ``features`` in float32 and level-0 ``coords`` of every patch of the finest scale. They
    are computed in the trainer's precision, which the attribute ``precision`` of ``features`` says; on the command line
    that is float32 (``32-true``) unless ``trainer.precision`` says otherwise, since half precision, once stored, does not
    show. A slide goes to disk in the parts that it is encoded in. Cases whose files are all there are left out, so that an
    interrupted run goes on where it stopped; ``predictions.csv`` then has the others only.

    The encoder is the task's, so ``predict`` with a checkpoint extracts features of the trained one, and without a
    checkpoint those of the encoder that the config names, such as a ``TimmEncoder``.
    """

    def __init__(self) -> None:
        super().__init__("batch")
        self._cache, self._folder = Path(), Path()
        self._finished: list[Path] = []
        self._encoder, self._precision = "", ""
        self._encoded = torch.empty(0)
        self._tf32: tuple[bool, str] | None = None
        self._hook: torch.utils.hooks.RemovableHandle | None = None
        self._writer: TridentWriter | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave out the cases whose files are there.

        Raises:
            InputError: What is predicted are no cached slides at their finest scale.
        """
        if stage != "predict":
            return
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, SlideDataModule) or data.eval_scales != "finest":
            raise InputError(
                "features are extracted from patches of the finest scale; predict with a SlideDataModule whose"
                " eval_scales is finest"
            )
        self._cache, self._folder = data.cache, Path(trainer.default_root_dir, "features")
        self._folder.mkdir(parents=True, exist_ok=True)
        files = {case.id: [self._path(slide) for slide in case.slides] for case in data.cases["all"]}
        done = {case for case, paths in files.items() if all(path.exists() for path in paths)}
        self._finished = [path for paths in files.values() for path in paths if path.exists()]
        trainer.strategy.barrier()  # no process writes before all have looked
        left = [index for index, case in enumerate(data.cases["all"]) if case.id not in done]
        data.cases["all"] = [data.cases["all"][index] for index in left]
        data.targets["all"] = [data.targets["all"][index] for index in left]
        if done:
            logger.info("%s has the features of %d cases; %d are left", self._folder, len(done), len(left))
        if not left:
            trainer.limit_predict_batches = 0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look whether the files that are there were written likewise, now that the encoder's weights are known.

        Raises:
            FeatureError: They were written by another encoder, in another precision, or from other patches.
        """
        assert isinstance(pl_module, BagTask)
        self._check_finished(trainer, pl_module)
        if self._precision == "32-true":  # TF32 would round to ten bits, and not show in the file either
            self._tf32 = (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision())
            torch.backends.cudnn.allow_tf32 = False
            torch.set_float32_matmul_precision("highest")
        self._hook = pl_module.encoder.register_forward_hook(self._keep)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look at the files that are there also where nothing was left to do, and prediction did not start.

        Raises:
            FeatureError: As :meth:`on_predict_start`.
        """
        if stage == "predict" and trainer.limit_predict_batches == 0 and isinstance(pl_module, BagTask):
            self._check_finished(trainer, pl_module)

    def _check_finished(self, trainer: Trainer, task: BagTask) -> None:
        self._encoder, self._precision = describe_encoder(task.encoder), str(trainer.precision)
        for path in self._finished:
            expected = self._attributes(PatchStore(self._cache / f"{path.stem}.zarr"))
            for table, found in read_attributes(path).items():
                if {**found, "savetodir": ""} != {**expected[table], "savetodir": ""}:
                    raise FeatureError(
                        f"{path} has {table} of {found}, and now they would be of {expected[table]}; remove the folder,"
                        " or write into another (trainer.default_root_dir)"
                    )

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: object,
        batch_indices: Sequence[int] | None,
        batch: object,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the features of a part of a slide."""
        bags = _whole_slides(trainer)
        assert batch_indices is not None
        (index,) = batch_indices  # a part of a slide is a batch
        if index == len(bags):  # the nothing that fills up a process's share
            return
        part = bags.parts[index]
        store = PatchStore(self._cache / f"{part.slide}.zarr")
        if part.start == 0:
            self._writer = self._begin(store)
        assert self._writer is not None  # parts of a slide follow each other
        self._writer.write(self._encoded)
        if part.stop == store.num_patches():
            self._writer.finish()
            self._writer = None

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let go of the encoder."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let go of the encoder, and of a slide that is not whole."""
        self._stop()

    def _keep(self, encoder: nn.Module, patches: tuple[Tensor, ...], features: Tensor) -> None:
        """Keep the encoder's last output: in prediction it sees a part of a slide at once."""
        self._encoded = features

    def _path(self, slide: str) -> Path:
        return self._folder / f"{slide}.h5"

    def _begin(self, store: PatchStore) -> TridentWriter:
        coords = store.coords()
        known = (coords >= 0).any()  # places of imported patches may be unknown
        return TridentWriter(
            self._path(store.name),
            store.num_patches(),
            coords if known else None,
            self._attributes(store),
        )

    def _attributes(self, store: PatchStore) -> Attributes:
        origin: dict[str, str | int] = {"name": store.name, "savetodir": str(self._folder)}
        return {
            "features": {**origin, "encoder": self._encoder, "precision": self._precision},
            "coords": {**origin, **describe_patches(store)},
        }

    def _stop(self) -> None:
        if self._tf32 is not None:
            torch.backends.cudnn.allow_tf32, precision = self._tf32
            torch.set_float32_matmul_precision(precision)
            self._tf32 = None
        if self._hook is not None:
            self._hook.remove()
        if self._writer is not None:
            self._writer.abandon()
        self._hook, self._writer, self._encoded = None, None, torch.empty(0)


def describe_encoder(encoder: nn.Module) -> str:
    """Class of an encoder, D and a checksum of its weights, as JSON."""
    checksum = 0
    for name, weights in encoder.state_dict().items():
        data = weights.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        checksum = zlib.crc32(data, zlib.crc32(name.encode(), checksum))
    facts = {"class": type(encoder).__name__, "num_features": encoder.num_features}
    return json.dumps({**facts, "weights_crc32": f"{checksum:08x}"})


def _whole_slides(trainer: Trainer) -> WholeSlides:
    """The slides that are predicted."""
    data = getattr(trainer.predict_dataloaders, "dataset", None)
    bags = data.bags if isinstance(data, Padded) else data
    assert isinstance(bags, WholeSlides)  # a SlideDataModule's are
    return bags
