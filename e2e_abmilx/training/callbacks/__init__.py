"""Lightning callbacks, one behaviour of a run per file.

* ``run_folder``: where the files of a run go; files of an earlier run are archived
* ``same_files``: refuses machines that do not see the same run folder and cases
* ``run_config``: the config, in ``fit.yaml`` or that of another command
* ``run_record``: versions, hardware and durations, in ``run.yaml``
* ``splits``: which case is in which split, in ``splits.csv``
* ``checkpoints``: ``best.ckpt`` and ``last.ckpt``
* ``early_stopping``: early stopping that starts at ``trainer.min_epochs``
* ``progress_bar``: progress as bars in a terminal
* ``progress_lines``: progress as lines of the log
* ``data_wait``: the fraction of the time that the device waits for data
* ``memory_advice``: which settings to change when memory runs out
* ``predictions``: one row per case, in ``predictions.csv``
* ``embeddings``: the embedding of each tested case, in ``embeddings.npz``
* ``attention_maps``: the attention to the patches of each tested case, in ``attention/``
* ``predicted_slides``: the slides that a trainer predicts or tests
* ``heatmap``: a heatmap per slide
* ``faithfulness``: how faithful heatmaps are, in ``faithfulness.csv``
* ``slide_truth``: which patches of the tested slides are marked in masks
* ``features``: a file of features per slide
"""

from e2e_abmilx.training.callbacks.attention_maps import AttentionMaps
from e2e_abmilx.training.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from e2e_abmilx.training.callbacks.data_wait import DataWait
from e2e_abmilx.training.callbacks.early_stopping import DeferredEarlyStopping
from e2e_abmilx.training.callbacks.embeddings import EmbeddingTable
from e2e_abmilx.training.callbacks.faithfulness import Faithfulness
from e2e_abmilx.training.callbacks.features import FeatureWriter
from e2e_abmilx.training.callbacks.heatmap import AttentionHeatmap
from e2e_abmilx.training.callbacks.memory_advice import MemoryAdvice
from e2e_abmilx.training.callbacks.predictions import PredictionTable
from e2e_abmilx.training.callbacks.progress_bar import PatchBar
from e2e_abmilx.training.callbacks.progress_lines import ProgressLines
from e2e_abmilx.training.callbacks.run_record import RunRecord
from e2e_abmilx.training.callbacks.splits import SplitTable

__all__ = [
    "AttentionHeatmap", "AttentionMaps", "BestCheckpoint", "DataWait", "DeferredEarlyStopping", "EmbeddingTable",
    "Faithfulness", "FeatureWriter", "LastCheckpoint", "MemoryAdvice", "PatchBar", "PredictionTable", "ProgressLines",
    "RunRecord", "SplitTable",
]  # fmt: skip
