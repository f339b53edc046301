"""Variants of a model: names and options of ``fit``, read from a YAML file."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from e2e_abmilx.errors import InputError


class Variant(NamedTuple):
    """A variant of a model.

    Attributes:
        name: Name, as in the table of a comparison.
        folder: Name of the folder of its runs, made of letters, digits and ``_ . + -``.
        options: Values of options of ``fit`` by their dotted names, such as ``model.head.num_heads``.
    """

    name: str
    folder: str
    options: dict[str, Any]

    @property
    def words(self) -> list[str]:
        """The options as words of a command line."""
        # a text is passed as it is typed on a command line; JSON is YAML, which the parser reads
        return [
            f"--{name}={value if isinstance(value, str) else json.dumps(value, default=str)}"
            for name, value in self.options.items()
        ]


def read_variants(path: Path) -> list[Variant]:
    """Return the variants in a YAML file, in its order.

    The file is a mapping of names to options of ``fit``; ``{}`` changes nothing::

        ABMILX: {model.head: ABMILX}
        ABMILX, α fixed at 1: {model.head: ABMILX, model.head.alpha_init: 1.0, model.head.alpha_fixed: true}

    Raises:
        InputError: The file is not such a mapping, a name or an option is given twice, or two variants would have the
            same folder.
        OSError: The file cannot be read.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        _refuse_repeated_keys(root, path)
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict) or not content:
        raise InputError(
            f"{path} holds no variants; write one a line, a name and its options: 'one head: {{model.head.num_heads: 1}}'"
        )
    variants = [_variant(str(name), options, path) for name, options in content.items()]
    _refuse_shared_folders(variants, path)
    return variants


def refuse_conflicts(variants: Sequence[Variant], shared: Sequence[str]) -> None:
    """Refuse options that a variant sets and that all runs share, since only one of the values can hold.

    Args:
        variants: The variants.
        shared: Words of a command line, for all runs.

    Raises:
        InputError: An option is set by both.
    """
    names = {_plain(word.removeprefix("--").split("=")[0]) for word in shared if word.startswith("--")}
    for variant in variants:
        for option in variant.options:
            if _plain(option) in names:
                raise InputError(
                    f"{option} is set for all runs and by the variant {variant.name!r}; leave out one of the two"
                )


def _variant(name: str, options: object, path: Path) -> Variant:
    if not isinstance(options, dict) or not all(isinstance(option, str) for option in options):
        raise InputError(
            f"the variant {name!r} in {path} is {options!r}, not a mapping of options, such as"
            " {model.head: ABMIL, model.head.dropout: 0.1}; {} changes nothing"
        )
    folder = re.sub(r"[^\w.+-]+", "-", name).strip("-.")
    if not folder:
        raise InputError(f"the name {name!r} in {path} has no letter or digit to name its folder by; choose another")
    return Variant(name, folder, options)


def _refuse_shared_folders(variants: Sequence[Variant], path: Path) -> None:
    taken: dict[str, Variant] = {}
    for variant in variants:
        other = taken.setdefault(variant.folder.casefold(), variant)  # not all file systems tell cases apart
        if other is not variant:
            raise InputError(
                f"{path}: the runs of {other.name!r} and {variant.name!r} would share the folder {variant.folder}; choose"
                " names that differ in letters, digits or the signs _ . + -"
            )


def _refuse_repeated_keys(node: yaml.Node | None, path: Path) -> None:
    """Refuse keys that YAML would silently replace by later ones, at every depth."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated_keys(item, path)
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        for place, (key, value) in enumerate(node.value):
            if key.value in keys[:place]:
                line = key.start_mark.line + 1
                raise InputError(f"{path}, line {line}: {key.value!r} is given twice; name it once")
            _refuse_repeated_keys(value, path)


def _plain(option: str) -> str:
    """Return the name of an option without ``init_args`` and the sign of an addition to a list."""
    return option.replace(".init_args.", ".").removesuffix("+")
