"""A trained model as a thing: loaded, it predicts slides; exported, it is a folder of plain files.

- ``inputs``: slides, stores and features, made into the bags that a model takes
- ``predictions``: the prediction for a case, and for many as a table
- ``model``: one or several trained tasks that predict slides
- ``folder``: a model as a folder of plain files
- ``loading``: models loaded from checkpoints, runs, cross-validations and folders
- ``cohorts``: the cases that a command predicts
- ``predict``: the command ``predict --model``
"""

from e2e_abmilx.models.loading import load_model
from e2e_abmilx.models.model import Model
from e2e_abmilx.models.predictions import CasePrediction

__all__ = ["CasePrediction", "Model", "load_model"]
