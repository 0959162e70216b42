"""The command that prints a job's output: `jobledger logs`."""

import asyncio

import click

from jobledger import OutputPiece
from jobledger.cli.connection import Connection
from jobledger.cli.exit_codes import flush, print_note, stoppable, write_bytes
from jobledger.cli.options import Command, pass_connection
from jobledger.cli.outages import Outages


@click.command(cls=Command)
@click.argument("job_id", metavar="JOB")
@click.option("-f", "--follow", is_flag=True, help="Go on as it is written, until the job ends.")
@click.option(
    "--stream",
    metavar="NAME",
    default="",
    help="Which stream of the job's output, for instance log.  [default: the one without a name]",
)
@click.option(
    "--since-offset",
    type=click.IntRange(min=0),
    metavar="N",
    help="Leave out the first N bytes of the stream.",
)
@click.option(
    "--last",
    "last_bytes",
    type=click.IntRange(min=0),
    metavar="BYTES",
    help="Begin so many bytes before the end as it is now.",
)
@pass_connection
def logs(
    connection: Connection,
    *,
    job_id: str,
    follow: bool,
    stream: str,
    since_offset: int | None,
    last_bytes: int | None,
) -> None:
    """Print what a job's workers have written: its output.

    It prints what is stored and exits, whatever the job does. With --follow it goes on until the
    job is COMPLETED, PARTIAL or FAILED, through restarts of the service. The bytes are printed as
    they were written. If the oldest ones are not stored any more, stderr says so.
    """
    if since_offset is not None and last_bytes is not None:
        raise click.UsageError("give --since-offset or --last, not both")
    printer = _Printer()

    async def run() -> None:
        with stoppable():
            async with connection.open_async() as client:
                if follow:
                    outages = Outages(connection.server, print_note)
                    async with client.output(
                        job_id,
                        stream=stream,
                        after=since_offset or 0,
                        last_bytes=last_bytes,
                        on_disconnect=outages.disconnected,
                        on_reconnect=outages.reconnected,
                    ) as pieces:
                        async for piece in pieces:
                            outages.received()
                            printer.show(piece)
                else:
                    piece = await client.read_output(
                        job_id, stream=stream, offset=since_offset or 0, last_bytes=last_bytes
                    )
                    printer.show(piece)
                    while not piece.up_to_date:
                        piece = await client.read_output(
                            job_id, stream=stream, offset=piece.next_offset
                        )
                        printer.show(piece)
                if printer.is_silent and not stream:
                    job = await client.get_job(job_id)
                    if others := sorted(filter(None, job.output_streams)):
                        print_note(f"there are other streams: --stream {', '.join(others)}")

    asyncio.run(run())


class _Printer:
    def __init__(self) -> None:
        self.is_silent = True

    def show(self, piece: OutputPiece) -> None:
        if piece.truncated_before:
            print_note(f"what came before byte {piece.truncated_before} is not stored any more")
        if piece.data:
            self.is_silent = False
            write_bytes(piece.data)
            flush()
