"""The help of the programs."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from jobledger.cli.commands import jobledger
from jobledger_server.__main__ import main as jobledger_server


def groups(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    yield path
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from groups(command, *path, name)


@pytest.mark.parametrize("program", [jobledger, jobledger_server])
def test_each_command_is_listed_with_a_whole_sentence(program: click.Group) -> None:
    for path in groups(program):
        shown = CliRunner().invoke(program, [*path, "--help"], terminal_width=80)
        lines = shown.output.splitlines()
        commands = lines[lines.index("Commands:") + 1 :]
        assert [line for line in commands if line.endswith("...")] == []
