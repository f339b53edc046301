"""The embeddings of the tested cases of a run, in its ``embeddings.npz``."""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from e2e_abmilx.errors import InputError


def read_embeddings(folder: Path) -> pd.DataFrame | None:
    """Return the embeddings of a run, one row per tested case, indexed by case; None for a run without the file.

    :class:`~e2e_abmilx.training.callbacks.embeddings.EmbeddingTable` describes the file.

    Raises:
        InputError: The file is damaged, or names a case twice.
    """
    path = folder / "embeddings.npz"
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as content:
            table = pd.DataFrame(content["embedding"], index=content["case"].astype(str))
    except (ValueError, KeyError, OSError, EOFError, BadZipFile) as error:
        raise InputError(f"{path} is damaged ({error}); remove it, or test again") from error
    if table.index.has_duplicates:
        raise InputError(f"{path} has two rows of case {table.index[table.index.duplicated()][0]}; test again")
    return table
