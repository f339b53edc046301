"""Text inside Markdown, read by an independent parser."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_reader import blocks_of, rows_of, text_of

from e2e_abmilx.models.export.markdown import Markdown, code, escape, one_line

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text(
    "|`\\*_<>[]()#-+=1.) \n&;:!~$a", max_size=20
)


def cells_of(markdown: str) -> list[str]:
    (table,) = blocks_of(f"| a | b |\n| --- | --- |\n| {markdown} | end |\n")
    return rows_of(table)[1]


@given(text=TEXTS)
@example("`a|b`")
@example("a\\|b")
@example("ends with \\")
@example("<script>alert(1)</script> &amp; ![x](http://a)")
def test_a_cell_shows_the_text_as_it_is(text: str) -> None:
    seen = one_line(text)
    assert cells_of(escape(text)) == [seen, "end"]
    assert cells_of(code(text)) == [seen, "end"]


@given(text=TEXTS)
@example("1. x")
@example("- x")
@example("# x")
@example("> x")
@example("---")
@example("12) x")
def test_a_paragraph_shows_the_text_as_it_is(text: str) -> None:
    blocks = blocks_of(f"before\n\n{escape(text)}\n\nafter\n")
    assert {block["type"] for block in blocks} == {"paragraph"}
    shown = [text_of(block) for block in blocks]
    assert shown == ["before", *([one_line(text)] if one_line(text) else []), "after"]


def test_markdown_is_not_escaped_again() -> None:
    assert escape(Markdown("*a*")) == "*a*"
    assert escape(escape("*a*")) == r"\*a\*"
    assert escape(-0.5) == "-0.5"


@pytest.mark.parametrize(
    ("text", "line"), [(" a\n\tb\u2028c ", "a b c"), ("a\u202eb", "a\ufffdb"), ("\x00", "\ufffd"), ("Ä µm", "Ä µm")]
)
def test_texts_become_one_visible_line(text: str, line: str) -> None:
    assert one_line(text) == line
