"""The usual precision depends on the device and on what it supports."""

import pytest
import torch

from e2e_abmilx.training.precision import best_precision


@pytest.mark.parametrize(
    ("accelerator", "on_gpu", "bf16", "expected"),
    [
        ("auto", True, True, "bf16-mixed"),
        ("gpu", True, True, "bf16-mixed"),
        ("cuda", True, False, "16-mixed"),
        ("auto", False, True, "bf16-mixed"),
        ("auto", False, False, "32-true"),
        ("cpu", True, True, "bf16-mixed"),
        ("cpu", True, False, "32-true"),
        ("mps", False, True, "32-true"),
    ],
)
def test_half_precision_only_where_it_is_supported(
    accelerator: str, on_gpu: bool, bf16: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: on_gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert best_precision(accelerator) == expected
