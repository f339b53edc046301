"""The command line builds every config of ``configs/``, and none states a default; the demo's config runs."""

import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from built_recipes import CONFIGS, build_config, build_recipe

from e2e_abmilx.datamodules import FeatureDataModule, SlideDataModule
from e2e_abmilx.main import main
from e2e_abmilx.tasks import BagTask

NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
GENERIC = ("classification", "survival")

#: Values that are stated although they are defaults, with the reasons, by the end of their names.
_ALWAYS_STATED = {"seed_everything": "the seed of a run is on record"}
_STATED_IN_GENERIC = {
    "model.augment.size": "7/8 of patch_size, with which it is edited",
    "model.optimizer.lr": "the first value that is tuned",
    "data.mpp": "decides what the model sees; users choose it for their tissue",
    "data.patch_size": "decides what the model sees; users choose it for their tissue",
    "data.folds": "its comment says what the folds are for",
    "data.time_bins": "is edited together with num_outputs",
}


@pytest.mark.parametrize("name", NAMES)
def test_the_command_line_builds_a_config(name: str, tmp_path: Path) -> None:
    recipe = build_recipe(name, tmp_path, **_options(name))
    assert isinstance(recipe.task, BagTask)
    assert isinstance(recipe.data, (SlideDataModule, FeatureDataModule))
    assert recipe.task.num_outputs == recipe.config.model.init_args.num_outputs
    rate = recipe.optimizer().defaults["lr"]
    assert isinstance(rate, float)  # YAML 1.1 would read 8e-5 as a string
    assert recipe.task.schedule is not None
    assert recipe.task.schedule(recipe.optimizer(), 10).base_lrs == [rate]
    assert (recipe.config.checkpoint.monitor or recipe.task.monitor) in {*recipe.task.val_metrics.keys(), "val/loss"}


@pytest.mark.parametrize("name", NAMES)
def test_a_config_states_no_default(name: str, tmp_path: Path) -> None:
    """Compare with the config that is left when all is removed but classes and arguments without a default."""
    stated = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    resolved = _flatten(_resolve(stated, tmp_path, name))
    bare = {"model": _bare(stated["model"], resolved, "model"), "data": _bare(stated["data"], resolved, "data")}
    callbacks = stated["trainer"].get("callbacks", [])
    bare["trainer"] = {"callbacks": _bare(callbacks, resolved, "trainer.callbacks")}
    defaults = _flatten(_resolve(bare, tmp_path, name))
    needed = _flatten(bare)
    allowed = {**_ALWAYS_STATED, **(_STATED_IN_GENERIC if name in GENERIC else {})}
    same = {key for key in _flatten(stated).keys() - needed.keys() if resolved.get(key, ...) == defaults.get(key)}
    assert {key.replace("init_args.", "") for key in same} - allowed.keys() == set()


def test_a_stated_default_is_found(tmp_path: Path) -> None:
    stated = yaml.safe_load((CONFIGS / "demo.yaml").read_text(encoding="utf-8"))
    resolved = _flatten(_resolve(stated, tmp_path, "demo"))
    defaults = _flatten(
        _resolve({key: _bare(stated[key], resolved, key) for key in ("model", "data")}, tmp_path, "demo")
    )
    lr, weight_decay = (f"model.init_args.optimizer.init_args.{name}" for name in ("lr", "weight_decay"))
    assert (resolved[lr], defaults[lr]) == (1e-3, 1e-4)  # the default of the task, not of torch
    assert resolved[weight_decay] == defaults[weight_decay] == 1e-2


@pytest.mark.parametrize("name", GENERIC)
def test_a_generic_config_has_25_to_40_lines(name: str) -> None:
    assert 25 <= len((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()) <= 40


def test_the_demo_runs_for_one_step(tmp_path: Path) -> None:
    small = {"--data.folder": tmp_path / "demo", "--data.num_slides": 24, "--data.side": 512, "--data.num_workers": 0}
    short = {"--trainer.fast_dev_run": 1, "--trainer.default_root_dir": tmp_path / "run"}
    options = [str(word) for pair in {**small, **short}.items() for word in pair]
    main(["fit", "--config", str(CONFIGS / "demo.yaml"), *options])
    assert len(list((tmp_path / "demo/cache").glob("*.zarr"))) == 24


def _options(name: str) -> dict[str, object]:
    """Return what a config leaves to the command line, and what needs no download."""
    text = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
    options: dict[str, object] = {}
    if "Precomputed" not in text:
        options["model.encoder.pretrained"] = "false"
    if name == "ucsb":
        options |= {"data.cache": "caches/none"}
    return options


def _resolve(settings: Mapping[str, Any], folder: Path, name: str) -> Any:
    """Return all settings that the command line reads from some of them."""
    (folder / "settings.yaml").write_text(yaml.safe_dump(dict(settings)), encoding="utf-8")
    options = _options(name)
    options.pop("model.encoder.pretrained", None)
    return build_config(folder / "settings.yaml", **options).as_dict()


def _bare(value: Any, resolved: Mapping[str, Any], key: str) -> Any:
    """Return a setting without the arguments of classes that have a default."""
    if isinstance(value, list):
        return [_bare(one, resolved, f"{key}.{number}") for number, one in enumerate(value)]
    kind = pkgutil.resolve_name(resolved[f"{key}.class_path"])
    bare: dict[str, Any] = {"class_path": value["class_path"]}
    for name, stated in value.get("init_args", {}).items():
        if isinstance(stated, dict) and "class_path" in stated:
            bare.setdefault("init_args", {})[name] = _bare(stated, resolved, f"{key}.init_args.{name}")
        elif name in _required(kind):
            bare.setdefault("init_args", {})[name] = stated
    return bare


def _required(kind: type) -> set[str]:
    """Return the arguments of a class that have no default."""
    signatures = [inspect.signature(one).parameters.values() for one in kind.__mro__[:-1]]
    return {one.name for own in signatures for one in own if one.default is one.empty}


def _flatten(value: Any, key: str = "") -> dict[str, Any]:
    """Return the values by dotted names; lists of values and dictionaries in arguments are single values."""
    return dict(_walk(value, key))


def _walk(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    inner: list[tuple[str, Any]] = []
    if isinstance(value, dict) and ("class_path" in value or not key.rpartition(".")[0].endswith("init_args")):
        inner = [(str(name), one) for name, one in value.items()]
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        inner = [(str(number), one) for number, one in enumerate(value)]
    for name, one in inner:
        yield from _walk(one, f"{key}.{name}" if key else name)
    if not inner:
        yield key, list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
