"""Features of every patch, as files to train heads on."""

import json
import logging
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor, nn

from e2e_abmilx.data.features import Attributes, FeatureError, TridentWriter, describe_patches, read_attributes
from e2e_abmilx.datamodules import SlideDataModule
from e2e_abmilx.errors import InputError
from e2e_abmilx.store import PatchStore
from e2e_abmilx.store.locations import Location, store_path
from e2e_abmilx.tasks import BagTask
from e2e_abmilx.training.callbacks.predicted_slides import predicted_slides

logger = logging.getLogger(__name__)


class FeatureWriter(BasePredictionWriter):
    """Write ``features/<slide>.h5`` into ``trainer.default_root_dir`` for each slide that is predicted.

    The files have TRIDENT's format: ``features`` in float32 and level-0 ``coords`` of every patch of the finest scale.
    Features are computed in the trainer's precision, which the attribute ``precision`` of ``features`` records. The
    command line uses float32 (``32-true``) unless ``trainer.precision`` is set, because stored features do not show
    that they were rounded. Features are written in the parts of a slide that are encoded together. Cases whose files
    all exist are skipped, so that an interrupted run can be resumed; ``predictions.csv`` then has only the others.

    The encoder is that of the task: with a checkpoint the trained one, and without a checkpoint the one that the config
    names, such as a ``TimmEncoder``.
    """

    def __init__(self) -> None:
        super().__init__("batch")
        self._cache: Location = Path()
        self._folder = Path()
        self._finished: list[Path] = []
        self._encoder, self._precision = "", ""
        self._encoded = torch.empty(0)
        self._writer: TridentWriter | None = None
        self._clean_up = ExitStack()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Skip the cases whose files exist.

        Raises:
            InputError: The data are not cached slides at their finest scale.
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
        files = [[self._folder / f"{slide}.h5" for slide in case.slides] for case in data.cases["all"]]
        left = [index for index, paths in enumerate(files) if not all(path.exists() for path in paths)]
        self._finished = [path for paths in files for path in paths if path.exists()]
        trainer.strategy.barrier()  # no process may write before all have checked which files exist
        data.cases["all"] = [data.cases["all"][index] for index in left]
        data.targets["all"] = [data.targets["all"][index] for index in left]
        done = len(files) - len(left)
        if done:
            logger.info("%s has the features of %d cases; %d are left", self._folder, done, len(left))
        if not left:
            trainer.limit_predict_batches = 0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check existing files against the encoder, whose weights are known only now.

        Raises:
            FeatureError: They were written by another encoder, in another precision, or from other patches.
        """
        assert isinstance(pl_module, BagTask)
        self._check_finished(trainer, pl_module)
        if self._precision == "32-true":  # TF32 would round to ten bits, which the files would not show
            self._clean_up.callback(setattr, torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
            self._clean_up.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
            torch.backends.cudnn.allow_tf32 = False
            torch.set_float32_matmul_precision("highest")
        self._clean_up.callback(pl_module.encoder.register_forward_hook(self._keep).remove)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check existing files also if no case was left, so that prediction did not start.

        Raises:
            FeatureError: As :meth:`on_predict_start`.
        """
        if stage == "predict" and trainer.limit_predict_batches == 0 and isinstance(pl_module, BagTask):
            self._check_finished(trainer, pl_module)

    def _check_finished(self, trainer: Trainer, task: BagTask) -> None:
        self._encoder, self._precision = describe_encoder(task.encoder), str(trainer.precision)
        for path in self._finished:
            expected = self._attributes(PatchStore(store_path(self._cache, path.stem)))
            for table, found in read_attributes(path).items():
                if {**found, "savetodir": ""} != {**expected[table], "savetodir": ""}:
                    raise FeatureError(
                        f"{path} has {table} of {found}, but those of this run are of {expected[table]}; remove the"
                        " folder, or write into another one (trainer.default_root_dir)"
                    )

    def write_on_batch_end(self, trainer: Trainer, *args: object, **kwargs: object) -> None:
        """Write the features of a batch, which is one part of a slide."""
        _, _, batch_indices, *_ = args
        (index,) = cast(Sequence[int], batch_indices)
        bags = predicted_slides(trainer)
        if index == len(bags):  # an empty item, which a process gets when it has fewer parts than the others
            return
        part = bags.parts[index]
        store = PatchStore(store_path(self._cache, part.slide))
        if part.start == 0:
            self._writer = self._open_writer(store)
        assert self._writer is not None  # the parts of a slide are in order
        self._writer.write(self._encoded)
        if part.stop == store.num_patches():
            self._writer.finish()
            self._writer = None

    def on_predict_end(self, *args: object, **kwargs: object) -> None:
        """Remove the hook, restore the precision of matrix products, and delete a file that is incomplete."""
        self._clean_up.close()
        if self._writer is not None:
            self._writer.abandon()
        self._writer, self._encoded = None, torch.empty(0)

    on_exception = on_predict_end

    def _keep(self, encoder: nn.Module, patches: tuple[Tensor, ...], features: Tensor) -> None:
        """Keep the output of the encoder, which in prediction encodes a part of a slide at once."""
        self._encoded = features

    def _open_writer(self, store: PatchStore) -> TridentWriter:
        coords = store.coords()
        known = (coords >= 0).any()  # imported patches may have no coordinates
        path = self._folder / f"{store.name}.h5"
        return TridentWriter(path, store.num_patches(), coords if known else None, self._attributes(store))

    def _attributes(self, store: PatchStore) -> Attributes:
        origin: dict[str, str | int] = {"name": store.name, "savetodir": str(self._folder)}
        return {
            "features": {**origin, "encoder": self._encoder, "precision": self._precision},
            "coords": {**origin, **describe_patches(store)},
        }


def describe_encoder(encoder: nn.Module) -> str:
    """Return the class of an encoder, its number of features D and a checksum of its weights, as JSON."""
    checksum = 0
    for name, weights in encoder.state_dict().items():
        data = weights.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        checksum = zlib.crc32(data, zlib.crc32(name.encode(), checksum))
    facts = {"class": type(encoder).__name__, "num_features": encoder.num_features}
    return json.dumps({**facts, "weights_crc32": f"{checksum:08x}"})
