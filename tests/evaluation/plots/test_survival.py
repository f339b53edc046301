import numpy as np
from drawn import curves_of, legend_texts

from e2e_abmilx.evaluation.plots import plot_kaplan_meier, plot_observed_events
from e2e_abmilx.evaluation.risk_groups import stratify_by_risk
from e2e_abmilx.evaluation.thresholds import Threshold


def test_kaplan_meier_shows_p_and_the_numbers_at_risk() -> None:
    risk = np.repeat([0.0, 1.0], 20)
    time = np.concatenate([np.arange(61.0, 101, 2), np.arange(1.0, 41, 2)])
    event = np.tile([1, 1, 1, 0], 10)
    axes = plot_kaplan_meier(stratify_by_risk(risk, time, event, Threshold(0.5, "train")))
    assert legend_texts(axes) == ["low risk", "high risk"]
    texts = [text.get_text() for text in axes.texts]
    assert texts[0] == "log-rank p < 0.001"
    ticks = axes.get_xticks()
    at_risk = [[int((time[risk == group] >= tick).sum()) for tick in ticks] for group in (0, 1)]
    first = texts.index("low risk") + 1
    assert [int(text) for text in texts[first : first + len(ticks)]] == at_risk[0]
    second = texts.index("high risk") + 1
    assert [int(text) for text in texts[second:]] == at_risk[1]
    assert len(axes.collections) == 2  # bands


def test_kaplan_meier_of_an_empty_group() -> None:
    groups = stratify_by_risk([1.0, 2.0], [5.0, 9.0], [1, 0], Threshold(0.5, "train"))
    axes = plot_kaplan_meier(groups)
    texts = [text.get_text() for text in axes.texts]
    assert texts[0] == "log-rank p undefined"
    assert set(texts[texts.index("low risk") + 1 : texts.index("high risk")]) == {"0"}


def test_observed_events_of_two_cohorts_share_an_axes() -> None:
    axes = plot_observed_events([0.2, 0.5], [0.1, 0.6], name="internal")
    plot_observed_events([0.3, 0.6], [0.4, np.nan], name="external", axes=axes)
    assert legend_texts(axes) == ["internal", "external"]
    one, two = curves_of(axes)
    np.testing.assert_array_equal(one, [[0.2, 0.1], [0.5, 0.6]])
    np.testing.assert_array_equal(two, [[0.3, 0.4], [0.6, np.nan]])
    assert axes.get_xlabel() == "expected fraction with an event"
