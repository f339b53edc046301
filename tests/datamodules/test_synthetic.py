import inspect
from pathlib import Path

import pytest

from e2e_abmilx.datamodules import SyntheticDataModule
from e2e_abmilx.runs.fits import resolve


@pytest.mark.slow  # it draws 24 slides; test_configs.py runs the demo for a step
def test_synthetic_slides_are_drawn_and_cached(tmp_path: Path) -> None:
    data = SyntheticDataModule(tmp_path, num_slides=24, side=512, patch_size=64, patches_per_bag=8, num_workers=0)
    data.prepare_data()
    data.setup("fit")
    assert data.classes == ("0", "1")
    assert len(list((tmp_path / "cache").glob("*.zarr"))) == 24
    assert next(iter(data.train_dataloader())).patches.shape == (4, 8, 3, 64, 64)


def test_the_settings_of_a_run_state_the_label_column() -> None:
    """The report reads the table by the settings that the run has recorded."""
    parameters = inspect.signature(SyntheticDataModule).parameters
    assert parameters["columns"].default == {"label": "lesion"}
    assert resolve(["--config", "configs/demo.yaml"])["data"]["init_args"]["columns"] == {"label": "lesion"}
