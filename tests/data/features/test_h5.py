import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
from feature_files import write_trident

from e2e_abmilx.data.features import read_features


def test_many_patches_are_read_in_blocks(tmp_path: Path) -> None:
    many = np.arange(10_000 * 3, dtype=np.float32).reshape(1, 10_000, 3)
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["features"] = many
    found = read_features(tmp_path / "s.h5")
    np.testing.assert_array_equal(found.read().numpy(), many[0])
    rows = np.array([0, 4095, 4096, 9999])
    np.testing.assert_array_equal(found.read(rows).numpy(), many[0, rows])


def test_without_h5py_the_extra_is_named(tmp_path: Path) -> None:
    path = write_trident(tmp_path / "s.h5")
    code = (
        "import sys; sys.modules['h5py'] = None\n"
        "from e2e_abmilx.data.features import FeatureError, read_features\n"
        f"try: read_features({str(path)!r})\n"
        "except FeatureError as error: print(error)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "`pip install e2e-abmilx[features]`" in found.stdout
