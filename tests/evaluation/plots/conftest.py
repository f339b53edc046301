from collections.abc import Iterator
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import pytest


@pytest.fixture(autouse=True)
def _without_a_screen() -> Iterator[None]:
    """Draw without a window, and check that no global setting changes."""
    backend, before = matplotlib.get_backend(), dict(matplotlib.rcParams)
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)
    changed = {name for name, value in matplotlib.rcParams.items() if value != before[name]}
    assert changed <= {"backend", "backend_fallback"}


@pytest.fixture
def metrics(tmp_path: Path) -> pd.DataFrame:
    """Return metrics as a run writes them: training and validation in separate rows."""
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,train/loss_epoch,train/fraction_holding_95,val/loss,val/fraction_holding_95\n"
        "0,9,,,0.9,0.8\n0,9,0.8,0.7,,\n1,19,,,0.7,0.6\n1,19,0.5,0.4,,\n"
    )
    return pd.read_csv(tmp_path / "metrics.csv")
