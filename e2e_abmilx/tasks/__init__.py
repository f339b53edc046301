"""Lightning modules: one a kind of label."""

from e2e_abmilx.tasks.base import BagTask
from e2e_abmilx.tasks.classification import ClassificationTask
from e2e_abmilx.tasks.cox import CoxTask
from e2e_abmilx.tasks.multi_label import MultiLabelTask
from e2e_abmilx.tasks.prediction import Prediction
from e2e_abmilx.tasks.survival import SurvivalTask

__all__ = ["BagTask", "ClassificationTask", "CoxTask", "MultiLabelTask", "Prediction", "SurvivalTask"]
