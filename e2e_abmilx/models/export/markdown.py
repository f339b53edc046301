"""Text from users inside Markdown: shown as it is, whatever signs it holds."""

import re


class Markdown(str):
    """Text that is Markdown already, and not escaped again."""

    __slots__ = ()


def escape(value: object) -> Markdown:
    """Return text that Markdown shows as it is, in one line; :class:`Markdown` is returned unchanged."""
    if isinstance(value, Markdown):
        return value
    text = re.sub(r"([\\`*_{}\[\]<>#|&~$!])", r"\\\1", one_line(str(value)))
    return Markdown(
        re.sub(r"^(?=[-+=](?!\d))|^(\d+)(?=[.)](?:\s|$))", r"\1\\", text)
    )  # no item of a list, no underline of a heading


def code(value: object) -> Markdown:
    """Return text as code, unless it holds a sign that code in a table cannot."""
    text = one_line(str(value))
    return escape(text) if not text or set(text) & set("`|") else Markdown(f"`{text}`")


def one_line(text: str) -> str:
    """Return text with single spaces and without invisible characters, such as those that change the direction."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(text.split()))
