import re
from pathlib import Path

import numpy as np
import pytest
from pages import RECORD

from e2e_abmilx.errors import InputError
from e2e_abmilx.reports.records import fit_seconds, read_record


def test_a_record_is_the_content_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RECORD)
    record = read_record(tmp_path)
    assert record["parameters"] == {"encoder": 2782784, "head": 62273}
    assert record["fit"]["started"].hour == 12
    assert fit_seconds(record) == 7507.4


def test_a_missing_or_incomplete_record_has_empty_sections(tmp_path: Path) -> None:
    assert read_record(tmp_path)["best"] == {}
    assert np.isnan(fit_seconds(read_record(tmp_path)))
    (tmp_path / "run.yaml").write_text("precision: 32-true\nbest: null\n")
    record = read_record(tmp_path)
    assert (record["precision"], record["best"], record["hardware"]) == ("32-true", {}, {})


def test_a_run_that_has_not_ended_has_no_duration(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(re.sub("ended: [^,]+, seconds: 7507.4", "ended: null, seconds: 40.0", RECORD))
    record = read_record(tmp_path)
    assert np.isnan(fit_seconds(record))
    assert (record["hardware"]["cores"], record["hardware"]["gpus"]) == (16, ["H100", "H100"])


@pytest.mark.parametrize(("text", "message"), [("a: [", "is not valid YAML"), ("", "holds no record")])
def test_a_damaged_record_is_named_in_the_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(InputError, match=f"(?s)run.yaml {message}.*restore or remove it"):
        read_record(tmp_path)
