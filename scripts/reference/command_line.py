"""The command line: what `--help` prints for each command of the programs."""

from collections.abc import Iterator

import click

from jobledger.cli.commands import jobledger
from jobledger_gateway.command import gateway as jobledger_gateway
from jobledger_server.__main__ import main as jobledger_server

INTRO = """\
# Command line

Every command and option of `jobledger`, `jobledger-server` and `jobledger-gateway` is here, as \
`--help` prints them. [The command line](../guides/command-line.md) shows how to use `jobledger`; \
[Settings](settings.md) lists the options of `jobledger-server serve` with their variables.

This page is made by `make docs`.
"""
WIDTH = 92


def page() -> str:
    """Return the page."""
    parts = [INTRO]
    programs = (
        (jobledger, "jobledger"),
        (jobledger_server, "jobledger-server"),
        (jobledger_gateway, "jobledger-gateway"),
    )
    for program, name in programs:
        for title, text in helps(program, name):
            parts.append(f"{'##' if title == name else '###'} {title}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def helps(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[tuple[str, str]]:
    """Yield the help of a command and of all commands below it, each with its full name."""
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    context = click.Context(command, parent=parent, info_name=name, **settings)
    lines = command.get_help(context).splitlines()
    yield context.command_path, "\n".join(line.rstrip() for line in lines)
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None and not found.hidden:
                yield from helps(found, child, context)
