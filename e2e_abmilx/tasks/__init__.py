"""Tasks: Lightning modules that train encoder and head from the labels of cases; one class per kind of label.

- ``base.py``: ``BagTask``, how every task learns
- ``checkpointed.py``: ``CheckpointedTask``, how every task meets data and is saved, with its input contract
- ``evaluating.py``: ``CaseTask``, how every task evaluates whole cases
- ``classification.py``, ``multi_label.py``: one class per case, several labels per case
- ``regression.py``: a number per case
- ``survival.py``, ``cox.py``: survival in discrete time, proportional hazards
- ``prediction.py``: the prediction for one case
- ``slide_heatmaps.py``: heatmaps of the slides of a case that a task has predicted
- ``case_maps.py``: the maps of such cases, which a run stores for the viewer
- ``case_faithfulness.py``: faithfulness of the heatmaps of a case that a task has predicted
- ``explained_scores.py``: the scores that heatmaps explain
- ``descriptions.py``: descriptions of a task in words and numbers
- ``checks.py``: checks that task, data and trainer fit together
- ``coverage.py``: which metrics the cases of a split leave undefined
- ``monitors.py``: whether a metric is to be maximised or minimised
- ``loss_watch.py``: detection of losses that are not finite
- ``schedules.py``: learning rates, warm-up and cosine
- ``sync_norms.py``: BatchNorm synchronised over processes
"""

from e2e_abmilx.tasks.base import BagTask
from e2e_abmilx.tasks.classification import ClassificationTask
from e2e_abmilx.tasks.cox import CoxTask
from e2e_abmilx.tasks.multi_label import MultiLabelTask
from e2e_abmilx.tasks.prediction import Prediction
from e2e_abmilx.tasks.regression import RegressionTask
from e2e_abmilx.tasks.survival import SurvivalTask

__all__ = [
    "BagTask", "ClassificationTask", "CoxTask", "MultiLabelTask", "Prediction", "RegressionTask", "SurvivalTask",
]  # fmt: skip
