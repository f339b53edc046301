"""The command line accepts every config of ``configs/``, and the demo's config runs."""

from pathlib import Path

import pytest
import yaml

from e2e_abmilx.main import main

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_the_command_line_accepts_a_config(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needed = ["--data.cache", "caches/none"] if "SlideDataModule" in config.read_text() else []
    if "SyntheticDataModule" in config.read_text():
        needed = []
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(config), *needed, "--print_config"])
    assert stopped.value.code in (None, 0)
    shown = yaml.safe_load(capsys.readouterr().out)
    lr = shown["model"]["init_args"]["optimizer"]["init_args"]["lr"]
    assert isinstance(lr, float)  # YAML 1.1 would read 8e-5 as a string


def test_the_demo_runs_for_one_step(tmp_path: Path) -> None:
    small = {"--data.folder": tmp_path / "demo", "--data.num_slides": 24, "--data.side": 512, "--data.num_workers": 0}
    short = {"--trainer.fast_dev_run": 1, "--trainer.default_root_dir": tmp_path / "run"}
    options = [str(word) for pair in {**small, **short}.items() for word in pair]
    main(["fit", "--config", str(CONFIGS[0].parent / "demo.yaml"), *options])
    assert len(list((tmp_path / "demo/cache").glob("*.zarr"))) == 24
