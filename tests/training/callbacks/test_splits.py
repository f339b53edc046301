"""The split of each case is in the run's folder."""

from pathlib import Path

from small_fits import make_data, make_task, make_trainer

from e2e_abmilx.datamodules import FeatureDataModule
from e2e_abmilx.training.callbacks import SplitTable


def test_splits_are_written_and_can_be_read_again(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    make_trainer(tmp_path, SplitTable()).fit(make_task(), data)
    rows = (tmp_path / "splits.csv").read_text().splitlines()
    assert len(rows) == 31
    assert sum(row.endswith(",val") for row in rows) == 4
    again = FeatureDataModule(data.features, data.plan.labels, splits=tmp_path / "splits.csv", num_workers=0)
    again.setup("fit")
    assert again.cases == data.cases
