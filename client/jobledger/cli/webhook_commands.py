"""The commands about webhooks."""

import base64
import http.client
import secrets
import time
import uuid
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

import click
from google.protobuf.timestamp_pb2 import Timestamp

from jobledger import JobStatus, Webhook
from jobledger.cli.connection import Connection
from jobledger.cli.exit_codes import UNAVAILABLE, write
from jobledger.cli.options import (
    Group,
    all_users_option,
    as_json_option,
    filter_options,
    pass_connection,
)
from jobledger.cli.render import clean, header, row, table, time_text, to_json
from jobledger.cli.times import duration
from jobledger.core.webhook_events import Event, event_of
from jobledger.v1.job_pb2 import (
    JOB_STATUS_COMPLETED,
    JOB_STATUS_PROCESSING,
    Job,
    JobTransition,
)

COLUMNS: Final = (("ID", 36), ("USER", 16), ("PENDING", 7), ("GIVEN UP", 8), ("STATE", 8))

STATES: Final = tuple(status for status in JobStatus if status is not JobStatus.QUEUED)
"""Those to which a job is moved."""

TEST_SECONDS: Final = 15.0
SHOWN_BYTES: Final = 2000
"""Of the answer to a test."""

_all_users_option = click.option(
    "--all-users", is_flag=True, help="Whoever owns it, without --user; for operators."
)

_transition_option = click.option(
    "--transition",
    "transitions",
    multiple=True,
    type=click.Choice([status.value for status in STATES], case_sensitive=False),
    callback=lambda _context, _option, values: tuple(map(JobStatus, values)),
    help="Post transitions to this state, PROCESSING for starts; repeat it for several.  [default:"
    " those to the states in which jobs end]",
)


@click.group(cls=Group)
def webhook() -> None:
    """Have the ends of jobs posted to a URL.

    A gateway that runs with --webhooks posts them, each at least once and in order for each job,
    signed as Standard Webhooks says.
    """


@webhook.command()
@click.argument("url", metavar="URL")
@filter_options
@_transition_option
@all_users_option
@as_json_option
@pass_connection
def create(
    connection: Connection,
    /,
    *,
    url: str,
    job_types: tuple[str, ...],
    labels: dict[str, str],
    transitions: tuple[JobStatus, ...],
    all_users: bool,
    as_json: bool,
) -> None:
    """Post how jobs end to URL; print the webhook's id and secret.

    It posts from now on. The secret is what deliveries are signed with. It is shown this once.
    """
    with connection.open(all_users=all_users) as client:
        made = client.create_webhook(
            url,
            job_types=job_types,
            labels=labels,
            transitions=transitions,
            all_users=all_users,
        )
    write(to_json(made) if as_json else f"{made.webhook.id}  {made.secret}")


@webhook.command(name="list")
@click.option("--all-users", is_flag=True, help="Those of all users, without --user.")
@as_json_option
@pass_connection
def list_webhooks(connection: Connection, /, *, all_users: bool, as_json: bool) -> None:
    """List webhooks, oldest first, and how they do.

    PENDING is how many deliveries have failed and are tried again, GIVEN UP how many are not.
    """
    with connection.open(all_users=all_users) as client:
        found = client.list_webhooks(all_users=all_users, page_size=1000)
        table(found, to_json if as_json else _webhook_row, header(COLUMNS, "URL"))


@webhook.command()
@click.argument("webhook_id", metavar="ID")
@_all_users_option
@as_json_option
@pass_connection
def get(connection: Connection, /, *, webhook_id: str, all_users: bool, as_json: bool) -> None:
    """Show a webhook, without its secret."""
    with connection.open(all_users=all_users) as client:
        found = client.get_webhook(webhook_id, all_users=all_users)
    _show(found, as_json=as_json)


@webhook.command()
@click.argument("webhook_id", metavar="ID")
@click.option("--url", metavar="URL", help="Where to post.")
@filter_options
@click.option("--all-types", is_flag=True, help="Jobs of all types.")
@click.option("--all-labels", is_flag=True, help="Jobs with any labels.")
@_transition_option
@click.option("--only-ends", is_flag=True, help="Post only how jobs ended.")
@_all_users_option
@as_json_option
@pass_connection
def update(
    connection: Connection,
    /,
    *,
    webhook_id: str,
    url: str | None,
    job_types: tuple[str, ...],
    labels: dict[str, str],
    all_types: bool,
    all_labels: bool,
    transitions: tuple[JobStatus, ...],
    only_ends: bool,
    all_users: bool,
    as_json: bool,
) -> None:
    """Change where a webhook posts to, or which transitions. It loses none.

    What no option names stays as it is.
    """
    for every, some, name in ((all_types, job_types, "type"), (all_labels, labels, "label")):
        if every and some:
            raise click.UsageError(f"--all-{name}s and --{name} exclude each other")
    if only_ends and transitions:
        raise click.UsageError("--only-ends and --transition exclude each other")
    with connection.open(all_users=all_users) as client:
        found = client.update_webhook(
            webhook_id,
            url=url,
            job_types=job_types if job_types or all_types else None,
            labels=labels if labels or all_labels else None,
            transitions=transitions if transitions or only_ends else None,
            all_users=all_users,
        )
    _show(found, as_json=as_json)


@webhook.command()
@click.argument("webhook_id", metavar="ID")
@click.option(
    "--keep-previous",
    metavar="DURATION",
    type=duration,
    help="How long deliveries are signed with the secret until now, too, as 2h, at most 7d. 0s if"
    " others know it.  [default: 1d]",
)
@_all_users_option
@as_json_option
@pass_connection
def rotate(
    connection: Connection,
    /,
    *,
    webhook_id: str,
    keep_previous: timedelta | None,
    all_users: bool,
    as_json: bool,
) -> None:
    """Give a webhook a new secret; print its id and the secret.

    For a while deliveries are signed with both: give the receiver the new one meanwhile.
    """
    with connection.open(all_users=all_users) as client:
        made = client.rotate_webhook_secret(
            webhook_id, keep_previous=keep_previous, all_users=all_users
        )
    write(to_json(made) if as_json else f"{made.webhook.id}  {made.secret}")


@webhook.command()
@click.argument("webhook_id", metavar="ID")
@_all_users_option
@pass_connection
def delete(connection: Connection, /, *, webhook_id: str, all_users: bool) -> None:
    """Delete a webhook."""
    with connection.open(all_users=all_users) as client:
        client.delete_webhook(webhook_id, all_users=all_users)
        write(f"deleted {webhook_id}")


@webhook.command()
@click.argument("webhook_id", metavar="ID")
@_all_users_option
@as_json_option
@pass_connection
def enable(connection: Connection, /, *, webhook_id: str, all_users: bool, as_json: bool) -> None:
    """Let a disabled webhook deliver again, from where it stopped."""
    with connection.open(all_users=all_users) as client:
        found = client.enable_webhook(webhook_id, all_users=all_users)
    _show(found, as_json=as_json)


@webhook.command()
@click.argument("url", metavar="URL")
@click.option(
    "--secret",
    metavar="SECRET",
    envvar="JOBLEDGER_WEBHOOK_SECRET",
    show_envvar=True,
    help="Sign with this one, whsec_...; others can see it in the list of processes: prefer the"
    " variable. Default: a new one, which is shown.",
)
def test(*, url: str, secret: str | None) -> int:
    """Post a sample delivery to URL, and show the answer.

    It is posted from here, and the request is shown, too. It needs no service. It exits with 6
    unless the answer is a success (2xx).
    """
    if secret is None:
        secret = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
        write(f"secret: {secret}")
    event = _sample()
    try:
        headers = event.headers([secret], time.time())
    except ValueError as error:
        raise click.UsageError(f"--secret: {error}") from None
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise click.UsageError(f"{url!r} is no http or https URL")
    if not parts.hostname.isascii():
        raise click.UsageError(f"{url!r}: write the host in ASCII, as xn--fa-hia.de")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    for line in (f"> POST {target}", *(f"> {name}: {each}" for name, each in headers.items())):
        write(clean(line))
    write(clean(f"> {event.body.decode()}"))
    connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = connect(parts.hostname, parts.port, timeout=TEST_SECONDS)
        connection.request("POST", target, event.body, headers)
        answer = connection.getresponse()
        body = answer.read(SHOWN_BYTES).decode(errors="replace")
    except (OSError, http.client.HTTPException, ValueError) as error:
        write(clean(f"no answer: {error or type(error).__name__}"))
        return UNAVAILABLE
    write(clean(f"< {answer.status} {answer.reason}"))
    for line in body.splitlines():
        write(clean(f"< {line}"))
    return 0 if 200 <= answer.status < 300 else UNAVAILABLE  # noqa: PLR2004


def _sample() -> Event:
    now = Timestamp()
    now.GetCurrentTime()
    job = Job(
        id=str(uuid.uuid4()),
        user_id="ada",
        job_type="sample",
        status=JOB_STATUS_COMPLETED,
        progress=100,
        attempt=1,
        version=3,
        create_time=now,
        start_time=now,
        update_time=now,
        complete_time=now,
    )
    transition = JobTransition(
        job_id=job.id,
        from_status=JOB_STATUS_PROCESSING,
        to_status=JOB_STATUS_COMPLETED,
        version=3,
        attempt=1,
        actor="worker",
        time=now,
    )
    return event_of(job, transition)


def _webhook_row(found: Webhook) -> str:
    cells = (found.id, found.user_id or "*", str(found.pending), str(found.given_up))
    return row(COLUMNS, (*cells, _state(found)), _note(found))


def _show(found: Webhook, *, as_json: bool) -> None:
    write(to_json(found) if as_json else f"{found.id}  {_state(found)}  {clean(_note(found))}")


def _state(found: Webhook) -> str:
    return "enabled" if found.disable_time is None else "disabled"


def _note(found: Webhook) -> str:
    if found.disable_reason:
        return f"{found.url} ({found.disable_reason})"
    failing = found.failure_time is not None and (
        found.success_time is None or found.failure_time > found.success_time
    )
    if failing:
        return f"{found.url} (failed {time_text(found.failure_time)}: {found.last_failure})"
    return found.url
