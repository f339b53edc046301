from pathlib import Path

import numpy as np
import pytest

from e2e_abmilx.errors import InputError
from e2e_abmilx.runs.embeddings import read_embeddings


def test_rows_are_named_by_their_case(tmp_path: Path) -> None:
    assert read_embeddings(tmp_path) is None
    embedding = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.savez(tmp_path / "embeddings.npz", case=np.array(["b", "a"]), embedding=embedding)
    found = read_embeddings(tmp_path)
    assert found is not None
    assert found.loc["a"].tolist() == [3, 4, 5]
    assert found.to_numpy().dtype == np.float32


def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.npz"
    np.savez(path, case=np.array(["a", "a"]), embedding=np.zeros((2, 3)))
    with pytest.raises(InputError, match="two rows of case a"):
        read_embeddings(tmp_path)
    whole = path.read_bytes()
    damaged = [whole[: len(whole) // 2], b"", b"text"]
    np.savez(path, case=np.array(["a"]))
    damaged.append(path.read_bytes())
    np.savez(path, case=np.array(["a"]), embedding=np.zeros((2, 3)))
    damaged.append(path.read_bytes())
    np.savez(path, case=np.array(["a"]), embedding=np.array([{}], dtype=object))  # a pickle
    damaged.append(path.read_bytes())
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"embeddings\.npz is damaged"):
            read_embeddings(tmp_path)
