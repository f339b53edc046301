"""Weight decay can leave out norms and biases."""

from small_fits import make_task


def test_norms_and_biases_can_be_left_out_of_weight_decay() -> None:
    task = make_task(decay_norms=False)
    decayed, others = task._parameter_groups()
    assert others["weight_decay"] == 0.0
    assert all(parameter.ndim < 2 for parameter in others["params"])
    assert all(parameter.ndim >= 2 for parameter in decayed["params"])
    assert len(decayed["params"]) + len(others["params"]) == len(list(task.parameters()))
    optimizer = task.optimizer(task._parameter_groups())
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-2, 0.0]
