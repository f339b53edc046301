"""With --ckpt_path, a stated setting of the model that differs from the checkpoint's is refused, never ignored."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from feature_runs import fit, write_config
from jsonargparse import Namespace
from slide_runs import message_of

from e2e_abmilx.errors import InputError
from e2e_abmilx.main import main
from e2e_abmilx.training.checkpoint_settings import keep_stated, read_model_settings

QUICK = ["--trainer.fast_dev_run", "true"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fit of one epoch, beside its config."""
    config = write_config(tmp_path_factory.mktemp("checkpoint_settings"))
    content = yaml.safe_load(config.read_text())
    content["model"]["init_args"]["loss"] = {"class_path": "torch.nn.CrossEntropyLoss"}
    config.write_text(yaml.safe_dump(content))
    fit(config, "--trainer.max_epochs", "1")
    return config.parent / "run"


def test_stated_values_are_refused_on_the_command_line(run: Path) -> None:
    words = ["test", "--config", str(run.parent / "config.yaml"), "--ckpt_path", "best"]
    stated = [
        "--model.optimizer.lr=0.5",
        "--model.optimizer.betas=[0.9,0.5]",
        "--model.loss=null",
        "--model.head=ABMILX",
    ]
    message = message_of([*words, *stated, "--model.augment", "RandomCrops", "--model.augment.size", "32"])
    assert f"a model that starts from {run / 'best.ckpt'} has its settings" in message
    assert message.splitlines()[1:-1] == [
        "  model.head is ABMILX, but ABMIL in the checkpoint",
        "  model.loss is null, but CrossEntropyLoss in the checkpoint",
        "  model.optimizer.lr is 0.5, but 0.01 in the checkpoint",
        "  model.optimizer.betas.1 is 0.5, but 0.999 in the checkpoint",
        "  model.augment is RandomCrops, but null in the checkpoint",
    ]
    assert f"leave them out or state the checkpoint's (--config {run / 'fit.yaml'} does)" in message


def test_stated_values_are_refused_in_a_config(run: Path, tmp_path: Path) -> None:
    content = yaml.safe_load((run.parent / "config.yaml").read_text())
    content["model"]["init_args"]["head"]["init_args"]["hidden_features"] = 24
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(content))
    message = message_of(["fit", "--config", str(tmp_path / "other.yaml"), "--ckpt_path", str(run / "last.ckpt")])
    assert "\n  model.head.hidden_features is 24, but 16 in the checkpoint\n" in message


def test_equal_values_and_defaults_pass(run: Path, tmp_path: Path) -> None:
    resume = ["fit", "--config", str(run / "fit.yaml"), "--ckpt_path", str(run / "last.ckpt")]
    main([*resume, *QUICK, "--model.optimizer.lr", "1e-2", "--model.head", "ABMIL"])
    content = yaml.safe_load((run.parent / "config.yaml").read_text())
    del content["model"]["init_args"]["optimizer"], content["model"]["init_args"]["loss"]
    (tmp_path / "bare.yaml").write_text(yaml.safe_dump(content))
    main(["test", "--config", str(tmp_path / "bare.yaml"), "--ckpt_path", "best", *QUICK])


def _settings(**changes: Any) -> Namespace:
    encoder = {"class_path": "e2e_abmilx.ResNetEncoder", "init_args": {"name": "resnet18", "weights": "a.pt"}}
    loss = {"class_path": "torch.nn.CrossEntropyLoss", "init_args": {"weight": [1.0, 2.0], "size_average": None}}
    arguments = {"encoder": encoder, "loss": loss, "sensitivity": None, **changes}
    return _space({"class_path": "ClassificationTask", "init_args": arguments})


def _space(settings: dict[str, Any]) -> Namespace:
    inner = {name: _space(value) if isinstance(value, dict) else value for name, value in settings.items()}
    return Namespace(inner)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sensitivity": 0.9}, ["sensitivity is 0.9, but null"]),
        ({"loss": None}, ["loss is null, but CrossEntropyLoss"]),
        (
            {"loss": {"class_path": "torch.nn.CrossEntropyLoss", "init_args": {"weight": [1.0]}}},
            ["loss.weight is [1.0]"],
        ),
        ({"loss": {"class_path": "torch.nn.NLLLoss", "init_args": {"weight": [5.0]}}}, ["loss is NLLLoss"]),
        ({"loss": {"class_path": "torch.nn.modules.loss.CrossEntropyLoss"}}, []),  # another path to the class
        ({"loss": {"class_path": "torch.nn.CrossEntropyLoss", "init_args": {"weight": [1, 2.0]}}}, []),
        ({"loss": {"class_path": "torch.nn.CrossEntropyLoss", "init_args": {"weight": None}}}, ["loss.weight is null"]),
        (
            {"loss": {"class_path": "torch.nn.CrossEntropyLoss", "dict_kwargs": {"size_average": 1}}},
            ["size_average is 1"],
        ),
        ({}, []),
    ],
)
def test_only_differences_are_named(changes: dict[str, Any], named: list[str]) -> None:
    stated, used = _settings(**changes), _settings()
    if not named:
        keep_stated(stated, used, "best.ckpt")
        assert used == _settings()
        return
    with pytest.raises(InputError) as refused:
        keep_stated(stated, used, "best.ckpt")
    lines = str(refused.value).splitlines()[1:-1]
    assert len(lines) == len(named)
    for line, part in zip(lines, named, strict=True):
        assert part in line


def test_first_weights_of_an_encoder_are_the_stated_ones() -> None:
    """Those of the checkpoint replace them, and its file may be missing here."""
    encoder = {"class_path": "e2e_abmilx.ResNetEncoder", "init_args": {"weights": None}}
    used = _settings()
    keep_stated(_settings(encoder=encoder), used, "best.ckpt")
    assert used["init_args.encoder.init_args.weights"] is None
    assert used["init_args.encoder.init_args.name"] == "resnet18"


def test_nothing_is_restored_from_a_checkpoint_without_settings(tmp_path: Path, run: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "bare.ckpt")
    assert read_model_settings(tmp_path / "bare.ckpt") == {}
    restored = read_model_settings(run / "best.ckpt")
    assert restored["class_path"].endswith("ClassificationTask")
    assert restored["dict_kwargs"]["num_outputs"] == 2
