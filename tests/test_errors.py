"""Every error of the package is one that the command line reports without a traceback."""

import ast
from pathlib import Path

import e2e_abmilx

PACKAGE = Path(e2e_abmilx.__file__).parent


def test_every_error_class_is_an_input_error() -> None:
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error") and node.name != "MeanAbsoluteError"
    }
    known = {"InputError"}
    while found := {name for name in bases.keys() - known if bases[name] & known}:
        known |= found
    assert bases["InputError"] == {"Exception"}
    assert bases.keys() == known
