from pathlib import Path

import numpy as np
import pandas as pd
from audited_runs import write_audited_run

from e2e_abmilx.reports.audited import TCGA_SITE, read_audited


def _change(folder: Path, **columns: list[str]) -> None:
    table = pd.read_csv(folder / "labels.csv", dtype=str).assign(**columns)
    table.to_csv(folder / "labels.csv", index=False)


def test_one_case_of_each_patient_also_where_sites_are_groups(tmp_path: Path) -> None:
    run = write_audited_run(tmp_path / "a", cases=40, tint=0)
    _change(tmp_path / "a", patient=[f"p{number // 2}" for number in range(40)])
    run = run._replace(settings={"data": {"init_args": {**run.data, "columns": {"group": "site"}}}})
    found = read_audited([run], [])
    assert [case.id for case in found.cases] == [f"case-{number:03d}" for number in range(0, 40, 2)]
    (embeddings,) = found.embeddings
    assert list(embeddings.index) == [case.id for case in found.cases]
    assert list(found.columns) == ["site", "scanner"]
    assert len(found.columns) == 40


def test_columns_of_names_barcodes_and_the_user(tmp_path: Path) -> None:
    run = write_audited_run(tmp_path / "a", cases=2)
    _change(tmp_path / "a", slide=["TCGA-A1-0001-01Z", "other"], site=["NA", "Bonn"], Zentrum=["x", "y"])
    found = read_audited([run], ["Zentrum", "site"]).columns
    assert found.to_dict("list") == {
        "Zentrum": ["x", "y"], "site": ["unknown", "Bonn"], "scanner": found["scanner"].tolist(),
        TCGA_SITE: ["A1", "unknown"],
    }  # fmt: skip


def test_only_cases_of_the_splits_count(tmp_path: Path) -> None:
    run = write_audited_run(tmp_path / "a", cases=40)
    assert len(read_audited([run._replace(splits=run.splits[:30])], []).cases) == 30
    assert len(read_audited([run._replace(splits=run.splits[:0])], []).cases) == 40


def test_colours_are_means_over_the_slides_of_a_case(tmp_path: Path) -> None:
    run = write_audited_run(tmp_path / "a", cases=40, tint=50)
    pairs = [f"case-{number:03d};case-{39 - number:03d}" for number in range(20)]  # one slide of each class
    _change(tmp_path / "a", slide=[*pairs, *(f"gone-{number}" for number in range(20))])
    found = read_audited([run], []).colours
    assert list(found.index) == [f"case-{number:03d}" for number in range(20)]
    np.testing.assert_allclose(found[0], 175, atol=15)


def test_what_is_gone_is_noted(tmp_path: Path) -> None:
    run = write_audited_run(tmp_path / "a", cases=40)
    (note,) = read_audited([run], []).notes
    assert note == f"not audited: colours, because {tmp_path / 'a/cache'} has none of the slides"
    other = dict(np.load(run.folder / "embeddings.npz"))
    np.savez(run.folder / "embeddings.npz", case=other["case"][1:], embedding=other["embedding"][1:])
    (tmp_path / "a/labels.csv").unlink()
    notes = read_audited([run], []).notes
    assert notes[0].startswith("not audited: columns and colours, because the label table cannot be read (")
    assert notes[-1].endswith("has other cases in embeddings.npz than in predictions.csv; test it again")
    embedding = np.where(np.arange(40)[:, None] == 3, np.nan, other["embedding"])
    np.savez(run.folder / "embeddings.npz", case=other["case"], embedding=embedding)
    assert read_audited([run], []).notes[-1].endswith("has embeddings that are not finite")
    data = {name: value for name, value in run.data.items() if name not in ("labels", "cache")}
    nothing = read_audited([run._replace(settings={"data": {"init_args": data}})], []).notes
    assert nothing[0] == "not audited: columns and colours, because the settings of the run name no label table"
