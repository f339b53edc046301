from pathlib import Path

from e2e_abmilx.datamodules import SyntheticDataModule


def test_synthetic_slides_are_drawn_and_cached(tmp_path: Path) -> None:
    data = SyntheticDataModule(tmp_path, num_slides=24, side=512, patch_size=64, patches_per_bag=8, num_workers=0)
    data.prepare_data()
    data.setup("fit")
    assert data.classes == ("0", "1")
    assert len(list((tmp_path / "cache").glob("*.zarr"))) == 24
    assert next(iter(data.train_dataloader())).patches.shape == (4, 8, 3, 64, 64)
