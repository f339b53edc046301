"""The viewer for notebooks."""

import urllib.request
from pathlib import Path

import pytest
from viewed_runs import write_viewed_run

import e2e_abmilx
from e2e_abmilx.errors import InputError
from e2e_abmilx.viewer import view


def test_a_notebook_shows_the_page_until_it_is_closed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = write_viewed_run(tmp_path / "run", tmp_path / "data", {"a": ["x"], "b": ["x"]}, mapped=False)
    with e2e_abmilx.view(str(run)) as viewer:
        assert f'<iframe src="{viewer.url}"' in viewer._repr_html_()
        assert viewer.url in repr(viewer)
        assert urllib.request.urlopen(viewer.url).status == 200
        assert urllib.request.urlopen(f"{viewer.url}run.json").status == 200
        again = view(run)  # a cell that is run again
        assert again.url != viewer.url
        again.close()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(viewer.url)
    assert "e2e-abmilx test --config" in caplog.text


def test_other_addresses_come_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = write_viewed_run(tmp_path / "run", tmp_path / "data", {"a": ["x"], "b": ["x"]}, mapped=False)
    view(run, host="0.0.0.0").close()
    assert "the server listens on 0.0.0.0: anyone who can reach it and knows the token sees the slides" in caplog.text


def test_a_folder_without_predictions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"predictions\.csv is missing"):
        view(tmp_path)
