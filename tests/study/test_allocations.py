import torch
from torch import nn

from e2e_abmilx.study.allocations import AllocationCounter

MB = 1_000_000  # of a 250,000-element float32 tensor


def test_what_a_training_step_holds_and_frees() -> None:
    net = nn.Sequential(nn.Linear(500, 500, bias=False), nn.ReLU(), nn.Linear(500, 500, bias=False), nn.ReLU())
    with AllocationCounter(net.parameters()) as counter:
        assert counter.held == 2 * MB  # weights
        batch = torch.randn(500, 500)
        assert counter.held == 3 * MB
        output = net(batch)
        assert counter.held == counter.peak - MB == 5 * MB  # a ReLU keeps its output, and its input is freed
        loss = output.sum()
        del output
        loss.backward()
        assert counter.held == 5 * MB + 4  # weights, gradients and batch, and the loss
        net.zero_grad()
        del loss, batch
    assert counter.held == 2 * MB


def test_views_count_once_and_meta_tensors_not_at_all() -> None:
    with AllocationCounter() as counter:
        whole = torch.zeros(1000)
        parts = [whole[:10], whole.view(10, 100), whole.detach()]
        assert counter.held == counter.peak == 4000
        nowhere = torch.zeros(1000, device="meta") + 1
        assert counter.held == 4000
        del whole
        assert counter.held == 4000
        del parts, nowhere
    assert counter.held == 0
