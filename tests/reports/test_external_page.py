import re
from pathlib import Path

import pandas as pd
from cohorts import classified_cohort
from pages import Page

from e2e_abmilx.reports.external_page import write_external_page
from e2e_abmilx.reports.external_tables import ExternalReport, measure_table
from e2e_abmilx.reports.groups import measure_groups
from e2e_abmilx.reports.validation import validate

EVIL = '<script>alert("&")</script>'


def test_page_shows_both_cohorts_and_loads_nothing(tmp_path: Path) -> None:
    internal, external = classified_cohort(50, seed=0), classified_cohort(40, seed=1, slope=0.5, prefix="external")
    groups = pd.DataFrame({"<b>site": [EVIL, "1"] * 20}, index=external.index)
    validated = validate(internal, external)
    measured = measure_groups(external, groups, validated.measures)
    report = ExternalReport(f"To {EVIL}", [("model", "<i>.ckpt")], internal, validated, measured)
    path = tmp_path / "evaluation.html"
    write_external_page(report, path)
    page = Page(path)
    assert page.texts_in("h1") == [f"To {EVIL}"]
    assert page.texts_in("h3") == [
        "ROC",
        "Precision and recall",
        "Confusion: internal",
        "Confusion: external",
        "Reliability",
        "Calibration: yes",
    ]
    assert {"internal (n = 50)", "external (n = 40)", "external − internal", EVIL} <= set(page.texts_in("th"))
    for row in measure_table(report).rows:
        assert set(row[1:]) <= set(page.texts_in("td"))
    assert "<i>.ckpt" in page.texts_in("td")
    tags = [tag for tag, _ in page.attributes]
    assert tags.count("script") == 1
    assert "i" not in tags
    assert not re.search(r"https?://|@import|url\(", path.read_text())
    assert all(source.startswith("data:image/") for source in page.attribute("img", "src"))
    sections = set(page.attribute("section", "id"))
    assert {link.removeprefix("#") for link in page.attribute("a", "href")} == sections
    before = path.read_bytes()
    write_external_page(report, path)
    assert path.read_bytes() == before
