"""Names of classes in options and configs: a mistyped one is explained in one sentence."""

import inspect
import pkgutil
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from lightning.pytorch import Callback, LightningDataModule
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from e2e_abmilx import datamodules, heads, losses, tasks
from e2e_abmilx.data import draws
from e2e_abmilx.encoders import fixed, timm_encoders
from e2e_abmilx.encoders.augment import RandomCrops
from e2e_abmilx.io.near_misses import did_you_mean
from e2e_abmilx.tasks.schedules import WarmupCosine
from e2e_abmilx.training import callbacks
from e2e_abmilx.training.stated_settings import Setting, read_settings

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_NOTHING = ("null", "None", "true", "false")


class _Place(NamedTuple):
    """An option that names a class.

    Attributes:
        kind: What the class is, for messages.
        base: Class that it derives from.
        ours: Names of the classes of this package.
    """

    kind: str
    base: type
    ours: tuple[str, ...]


def _classes_in(base: type, *modules: ModuleType) -> tuple[str, ...]:
    """Return the names of the classes in modules that derive from a base and can be built."""
    found = {
        name
        for module in modules
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, base) and value.__module__.startswith("e2e_abmilx")
    }
    return tuple(sorted(name for name in found if not name.startswith("_") and name not in _BASES))


_BASES = ("BagDataModule", "BagHead", "BagTask", "PatchDraw", "PoolingHead", "SequenceHead")  # to derive from
_ENCODER = _Place("encoder", nn.Module, _classes_in(nn.Module, fixed, timm_encoders))

#: Options by dotted name.
PLACES = {
    "model": _Place("task", tasks.BagTask, _classes_in(tasks.BagTask, tasks)),
    "model.encoder": _ENCODER,
    "model.encoder.encoder": _ENCODER,  # of FrozenEncoder
    "model.head": _Place("head", heads.BagHead, _classes_in(heads.BagHead, heads)),
    "model.augment": _Place("augmentation", nn.Module, (RandomCrops.__name__,)),
    "model.loss": _Place("loss", nn.Module, _classes_in(nn.Module, losses)),
    "model.optimizer": _Place("optimizer", Optimizer, ()),
    "model.schedule": _Place("schedule", LRScheduler, (WarmupCosine.__name__,)),
    "data": _Place("data module", LightningDataModule, _classes_in(LightningDataModule, datamodules)),
    "data.draw": _Place("draw", draws.PatchDraw, _classes_in(draws.PatchDraw, draws)),
    "trainer.callbacks": _Place("callback", Callback, _classes_in(Callback, callbacks)),
}


def explain_class_name(words: Sequence[str]) -> str | None:
    """Return why the first mistaken name of a class is refused, on the command line or in its config files.

    Returns:
        One sentence with the option, the name, the near miss and this package's classes; None if no name is mistaken.
    """
    reasons = (_explain(setting) for setting in read_settings(words))
    return next((reason for reason in reasons if reason), None)


def _explain(setting: Setting) -> str | None:
    name, value = setting.name.removesuffix(".class_path"), setting.value
    if name not in PLACES or not isinstance(value, str) or not _NAME.fullmatch(value) or value in _NOTHING:
        return None
    if Path(value).is_file():  # with the settings of the class
        return None
    place = PLACES[name]
    mistake = _mistake_in(value, place)
    if mistake is None:
        return None
    where = f"in {setting.file}, {name} is {value}" if setting.file else f"--{name} is {value}"
    ours = f"this package's: {', '.join(place.ours)}; " if place.ours else ""
    return f"{where}, but {mistake} ({ours}another class needs its path, such as my_module.MyClass)"


def _mistake_in(value: str, place: _Place) -> str | None:
    """Return what is wrong with the name of a class; None if it is right."""
    if "." not in value:
        if value in place.ours:
            return None
        kind = next((other.kind for other in PLACES.values() if value in other.ours), None)
        if kind:
            return f"this is a class for {kind}, not for {place.kind}"
        found = any(one.__name__ == value for one in _subclasses(place.base))
        return None if found else f"there is no {place.kind} of this name{_near_miss(value, place)}"
    try:
        named = pkgutil.resolve_name(value)
    except (ImportError, AttributeError, ValueError) as error:
        return f"{error}{_near_miss(value.rpartition('.')[2], place)}"
    if not inspect.isclass(named):
        return None  # a function that returns an instance
    if not issubclass(named, place.base):
        return f"this is no {place.kind}, because it does not derive from {place.base.__name__}"
    return _mistake_in(named.__name__, place) if named.__module__.startswith("e2e_abmilx.") else None


def _near_miss(name: str, place: _Place) -> str:
    return did_you_mean(name, {*place.ours, *(found.__name__ for found in _subclasses(place.base))})


def _subclasses(base: type) -> Iterator[type]:
    found: type
    for found in base.__subclasses__():
        if not found.__name__.startswith("_"):
            yield found
        yield from _subclasses(found)
