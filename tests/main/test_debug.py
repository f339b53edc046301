"""Tracebacks on demand."""

import os

import pytest

from e2e_abmilx.main.debug import debug, print_traceback_if_asked


def test_tracebacks_are_printed_in_debug_mode_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JSONARGPARSE_DEBUG", "false")
    try:
        raise ValueError("a reason")
    except ValueError:
        print_traceback_if_asked()
        assert capsys.readouterr().err == ""
        with debug():
            print_traceback_if_asked()
        assert "ValueError: a reason" in capsys.readouterr().err
    assert os.environ["JSONARGPARSE_DEBUG"] == "false"
