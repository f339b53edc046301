"""The command ``e2e-abmilx view``, as a process."""

import signal
import subprocess
import sys
import urllib.request
from functools import partial
from pathlib import Path

import pytest
from slide_runs import message_of
from viewed_runs import copy_data, write_viewed_run

from e2e_abmilx.main import main


@pytest.fixture
def run(tmp_path: Path, cohort: Path, stores: Path) -> Path:
    data = copy_data(tmp_path / "data", cohort, stores, {"slide-000": "slide-000"})
    return write_viewed_run(tmp_path / "run", data, {"case, 1": ["slide-000"], "case 2": ["slide-000"]})


def _start(*words: str) -> "subprocess.Popen[str]":
    words = (sys.executable, "-m", "e2e_abmilx", "view", *words)
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # tests in the background of a shell ignore Ctrl-C
    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed,  # noqa: PLW1509 - it is brief
    )


def test_it_prints_the_address_and_ctrl_c_ends_it(run: Path) -> None:
    process = _start("--run", str(run), "--port", "0")
    url = process.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:")
    assert urllib.request.urlopen(f"{url}case/0.json").status == 200
    port = url.split(":")[2].split("/")[0]
    second = _start("--run", str(run), "--port", port)
    assert f"error: port {port} is taken" in second.communicate(timeout=60)[1]
    assert second.returncode == 1
    assert urllib.request.urlopen(f"{url}run.json").status == 200
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=20)
    assert (process.returncode, out.splitlines()[-1], errors) == (0, "the viewer has ended", "")


@pytest.mark.parametrize(
    ("cases", "number"),
    [("case 2", 1), ("[case 2]", 1), ('["case, 1"]', 1), ("case 2,case 2", 1), ('["case, 1", case 2]', 2)],
)
def test_it_writes_a_copy_of_chosen_cases(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], cases: str, number: int
) -> None:
    main(["view", "--run", str(run), "--export", str(tmp_path / "copy"), "--cases", cases])
    assert f"{number} case" in capsys.readouterr().out
    assert len(list((tmp_path / "copy/data").glob("case-*.js"))) == number


def test_options_that_do_not_fit_are_refused(run: Path, tmp_path: Path) -> None:
    assert "add --export FOLDER" in message_of(["view", "--run", str(run), "--cases", "[case 2]"])
    assert "predictions.csv is missing" in message_of(["view", "--run", str(tmp_path)])
    assert "there is no case 'case 3'" in message_of(
        ["view", "--run", str(run), "--export", str(tmp_path / "c"), "--cases", "[case 3]"]
    )
