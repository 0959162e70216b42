"""The options that commands have in common: the connection, which jobs, how to print."""

import functools
import json
import sys
from collections.abc import Callable
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import click
from click.core import ParameterSource

from jobledger.cli.connection import DEFAULTS, Connection
from jobledger.cli.exit_codes import write
from jobledger.cli.profiles import DEFAULT_PROFILE, read_profile

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Function = TypeVar("_Function", bound=Callable[..., Any])

_KEY: Final = "jobledger.connection"
_HINT: Final = (
    "Options for the connection, such as --server and --user, may stand here too:"
    " see `jobledger --help`."
)


class _ConnectionOption(click.Option):
    """An option of `jobledger` that may also follow the command."""

    def __init__(self, *names: str, **attributes: Any) -> None:
        variable = f"JOBLEDGER_{names[0].removeprefix('--').partition('/')[0]}"
        super().__init__(
            names,
            envvar=variable.upper().replace("-", "_"),
            show_envvar=True,
            expose_value=False,
            callback=_record,
            **attributes,
        )

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        # A command's own help shows its own options, and says where these are explained.
        return super().get_help_record(ctx) if ctx.parent is None else None


def _record(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    name = parameter.name or ""
    source = context.get_parameter_source(name)
    if source in {ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT}:
        # One dictionary for `jobledger` and its commands; the command's own options come last.
        context.meta.setdefault(_KEY, {}).setdefault(source, {})[name] = value


def not_empty_if_given(context: click.Context, option: click.Parameter, text: str) -> str:
    """Refuse `--unique-key "$UNSET"`: without the key the job would not be unique."""
    if context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE and not text:
        raise click.BadParameter("is empty")
    return text


def _not_empty(text: str) -> str:
    if not text:
        raise click.BadParameter("is empty")
    return text


def _connection_options() -> list[click.Parameter]:
    option = _ConnectionOption
    text = functools.partial(option, type=_not_empty)
    return [
        text(
            "--server",
            metavar="HOST:PORT",
            default=DEFAULTS["server"],
            show_default=True,
            help="The address of the service.",
        ),
        text("--user", metavar="USER", help="The owner of the jobs."),
        text(
            "--token",
            metavar="TOKEN",
            help="A bearer token. Others can see it in the list of processes: prefer a file.",
        ),
        text(
            "--token-file",
            metavar="FILE",
            help="The file with the bearer token; read for each call.",
        ),
        option(
            "--tls/--no-tls",
            default=None,
            help="Encrypt the connection. The options below imply it.",
        ),
        text(
            "--ca-file",
            metavar="FILE",
            help="The CA certificates to trust, instead of the system's; PEM.",
        ),
        text("--cert", metavar="FILE", help="The client's certificate chain; PEM."),
        text("--key", metavar="FILE", help="The certificate's key; PEM."),
        text(
            "--tls-server-name",
            metavar="NAME",
            help="The name in the servers' certificates, if the address is not it: for a list of "
            "servers, as ipv4:10.1.0.1:50051,10.1.0.2:50051.",
        ),
        option(
            "--timeout",
            type=click.FloatRange(min=0, min_open=True),
            metavar="SECONDS",
            default=DEFAULTS["timeout"],
            show_default=True,
            help="How long one call may take, retries included, or a watch may take to connect.",
        ),
        text(
            "--profile",
            metavar="NAME",
            help=f"The profile in config.toml to use.  [default: {DEFAULT_PROFILE}]",
        ),
    ]


class Command(click.Command):
    """A command that also takes the options of the connection."""

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.params.extend(_connection_options())

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        if ctx.parent is not None:
            formatter.write_paragraph()
            formatter.write_text(_HINT)


class Group(Command, click.Group):
    """A group of commands, which alone shows its help and succeeds."""

    command_class = Command
    group_class = type

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        # With click's own no_args_is_help it would be an error.
        super().__init__(
            *arguments,
            invoke_without_command=True,
            subcommand_metavar="COMMAND [ARGS]...",
            **attributes,
        )

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        code = super().invoke(ctx)
        if ctx.invoked_subcommand is None:
            write(ctx.get_help())
        return code


class Listing(Group):
    """A group of commands, which alone does something of its own."""

    def invoke(self, ctx: click.Context) -> Any:
        return super(Group, self).invoke(ctx)


def pass_connection(
    function: Callable[Concatenate[Connection, _P], _R],
) -> Callable[_P, _R]:
    """Give a command its Connection: of options, the environment and a profile, in this order."""

    def call(*arguments: _P.args, **options: _P.kwargs) -> _R:
        given = click.get_current_context().meta.get(_KEY, {})
        layers = [
            dict(given.get(source, {}))
            for source in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
        ]
        profiles = [name for layer in layers if (name := layer.pop("profile", None))]
        layers.append(read_profile(profiles[0] if profiles else None))
        return function(Connection.of(layers), *arguments, **options)

    return functools.update_wrapper(call, function)


as_json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object a line."
)
all_users_option = click.option(
    "--all-users", is_flag=True, help="The jobs of all users, without --user."
)


parameters_option = click.option(
    "--parameters",
    metavar="JSON|@FILE|-",
    help="The input: a JSON object, a file that holds one, or - for stdin.",
)


def filter_options(function: _Function) -> _Function:
    """Add --type and --label: which jobs."""
    function = labels_option("Only jobs with this label; repeat it for jobs with all of several.")(
        function
    )
    return click.option(
        "--type",
        "job_types",
        multiple=True,
        metavar="TYPE",
        help="Only jobs of this type; repeat it for several types.",
    )(function)


def group_option(text: str) -> Callable[[_Function], _Function]:
    """Add --group, the id of a group; `text` is its help."""
    return click.option(
        "--group",
        "group_id",
        metavar="GROUP",
        default="",
        callback=not_empty_if_given,
        help=text,
    )


def labels_option(text: str) -> Callable[[_Function], _Function]:
    """Add --label, whose values become a dict; `text` is its help."""
    return click.option(
        "--label",
        "labels",
        multiple=True,
        metavar="KEY=VALUE",
        callback=_read_labels,
        help=text,
    )


def _read_labels(
    _context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]
) -> dict[str, str]:
    labels = {}
    for label in given:
        key, sign, value = label.partition("=")
        if not sign:
            raise click.UsageError(f"--label: {label!r} is not KEY=VALUE")
        labels[key] = value
    return labels


def read_parameters(given: str | None) -> dict[str, Any] | None:
    """Return the JSON object that --parameters names; None if it was not given."""
    if given is None:
        return None
    try:
        if given == "-":
            given = sys.stdin.read()
        elif given.startswith("@"):
            with click.open_file(given[1:], encoding="utf-8") as file:
                given = file.read()
        value = json.loads(given)
    except OSError as error:
        raise click.UsageError(f"--parameters: {error.strerror}: {error.filename}") from None
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"--parameters: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise click.UsageError("--parameters: not a JSON object")
    return value
