"""Text inside Markdown, read by an independent parser."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

from e2e_abmilx.models.markdown import Markdown, code, escape, one_line

READER = MarkdownIt("gfm-like", {"linkify": False})
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text(
    "|`\\*_<>[]()#-+=1.) \n&;:!~$a", max_size=20
)


def text_of(node: SyntaxTreeNode) -> str:
    """Return the text that a reader sees."""
    if node.type in ("text", "code_inline", "text_special"):
        return node.content
    return "".join(map(text_of, node.children))


def cells_of(markdown: str) -> list[str]:
    tree = SyntaxTreeNode(READER.parse(f"| a | b |\n| --- | --- |\n| {markdown} | end |\n"))
    return [text_of(cell) for cell in tree.children[0].children[-1].children[0].children]


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
    tree = SyntaxTreeNode(READER.parse(f"before\n\n{escape(text)}\n\nafter\n"))
    assert {node.type for node in tree.children} == {"paragraph"}
    shown = [text_of(node) for node in tree.children]
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
