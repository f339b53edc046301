"""Predictions of two cohorts whose truth is known, in the form of `Run.predictions`."""

import numpy as np
import pandas as pd

EDGES = (12.0, 24.0, 48.0)


def classified_cohort(
    cases: int, *, seed: int, slope: float = 1.0, prefix: str = "case", threshold: float = 0.4
) -> pd.DataFrame:
    """Return predictions of two classes whose true log odds are ``slope`` times the predicted ones."""
    generator = np.random.default_rng(seed)
    odds = generator.normal(0, 2, cases)
    positive = generator.random(cases) < 1 / (1 + np.exp(-slope * odds))
    probability = 1 / (1 + np.exp(-odds))
    columns = {"probability_no": 1 - probability, "probability_yes": probability, "threshold": threshold}
    return pd.DataFrame({"label": np.where(positive, "yes", "no"), **columns}, index=_names(prefix, cases))


def survival_cohort(cases: int, *, seed: int, factor: float = 1.0, prefix: str = "case") -> pd.DataFrame:
    """Return predicted survival whose true hazard is ``factor`` times the predicted one."""
    generator = np.random.default_rng(seed)
    log_hazard = generator.normal(-3.5, 0.8, cases)
    time = generator.exponential(1 / (factor * np.exp(log_hazard)))
    censored = generator.exponential(60, cases)
    survival = {f"survival_{edge:.6g}": np.exp(-np.exp(log_hazard) * edge) for edge in EDGES}
    return pd.DataFrame(
        {
            "time": np.minimum(time, censored),
            "event": (time <= censored).astype(float),
            **survival,
            "risk": -sum(survival.values()),
            "threshold": -1.8,
        },
        index=_names(prefix, cases),
    )


def _names(prefix: str, cases: int) -> pd.Index:
    return pd.Index([f"{prefix}-{number:04d}" for number in range(cases)], name="case")
