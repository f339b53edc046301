"""The table of commands."""

import inspect
import pkgutil

import pytest

from e2e_abmilx.main.commands import COMMANDS, CONFIGURED_PREDICT, GROUPS, Command, overview
from e2e_abmilx.main.starting import call, call_with_folder, call_with_places


def test_the_overview_lists_every_command_once_in_its_group() -> None:
    group = ""
    listed = []
    for line in overview().splitlines():
        if line.endswith(":"):
            group = line.removesuffix(":")
        elif line.startswith("  "):
            name, text = line.split(maxsplit=1)
            assert (COMMANDS[name].group, COMMANDS[name].line) == (group, text)
            listed.append(name)
    assert sorted(listed) == sorted(COMMANDS)
    assert {one.group for one in COMMANDS.values()} == set(GROUPS)
    assert max(map(len, overview().splitlines())) <= 80


@pytest.mark.parametrize("command", [*COMMANDS.values(), CONFIGURED_PREDICT], ids=[*COMMANDS, "configured predict"])
def test_targets_exist_and_have_typed_options(command: Command) -> None:
    target = pkgutil.resolve_name(command.target)
    parameters = inspect.signature(target).parameters
    assert inspect.getdoc(target)
    assert len(parameters) >= 1
    assert all(one.annotation is not inspect.Parameter.empty for one in parameters.values())
    if command.starts not in (call, call_with_folder, call_with_places):
        assert list(parameters) == ["words"]
