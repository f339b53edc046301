import pytest

from e2e_abmilx.reports.page_table import Table


@pytest.mark.parametrize(
    "cell", ["0.912", "-3", "−0.5", "2,782,784", "1e-05", "0.9 ± 0.1", "0.912 (0.8 to 0.95)", "–", 12]
)
def test_numbers_are_aligned_as_numbers(cell: object) -> None:
    assert Table("caption", ["name", "value"], [["a", cell], ["b", "1"]]).numeric == [False, True]


@pytest.mark.parametrize("cell", ["fold-0", "1 h 02 min", "", "12:30", {"slide": "address"}, {}])
def test_one_other_cell_makes_a_column_text(cell: object) -> None:
    assert Table("caption", ["name", "value"], [["a", "1"], ["b", cell]]).numeric == [False, False]


def test_a_table_without_rows_has_all_its_columns() -> None:
    assert len(Table("caption", ["a", "b", "c"], []).numeric) == 3
