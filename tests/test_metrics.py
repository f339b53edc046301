import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from e2e_abmilx.metrics import ConcordanceIndex, concordance_index


def _pairwise(risk: list[float], time: list[float], event: list[int]) -> float | None:
    """Harrell's C by its definition: over all pairs whose order of events is known."""
    agreed = comparable = 0.0
    for i, j in itertools.permutations(range(len(risk)), 2):
        if not event[i] or not (time[i] < time[j] or (time[i] == time[j] and not event[j])):
            continue
        comparable += 1
        agreed += 1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0
    return agreed / comparable if comparable else None


cases = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 8), st.integers(0, 1)), min_size=2, max_size=25)


@given(cases)
def test_against_all_pairs(rows: list[tuple[int, int, int]]) -> None:
    risk, time, event = (list(column) for column in zip(*rows, strict=True))
    found = concordance_index(torch.tensor(risk), torch.tensor(time), torch.tensor(event))
    wanted = _pairwise(risk, time, event)
    assert math.isnan(found) if wanted is None else found == pytest.approx(wanted)


def test_metric_streams_batches() -> None:
    torch.manual_seed(0)
    risk, time, event = torch.randn(30), torch.rand(30) * 50, torch.randint(0, 2, (30,))
    metric = ConcordanceIndex()
    for part in range(0, 30, 7):
        metric.update(risk[part : part + 7], time[part : part + 7], event[part : part + 7])
    assert metric.compute().item() == pytest.approx(concordance_index(risk, time, event))
    metric.reset()
    time, event = torch.arange(1, 6), torch.ones(5)
    metric.update(-time.float(), time, event)
    assert metric.compute() == 1
    metric.reset()
    metric.update(time.float(), time, event)
    assert metric.compute() == 0
