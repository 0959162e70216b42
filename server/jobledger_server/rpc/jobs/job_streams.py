"""WatchJob: a job watch's updates as messages, with payloads in the first one and the last."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from jobledger_server.admission.caller import SERVICE
from jobledger_server.domain.job import JobId, Payloads
from jobledger_server.ledger.reads import Reads
from jobledger_server.rpc.call import Call
from jobledger_server.rpc.jobs.shared_messages import SharedMessages
from jobledger_server.rpc.messages import WATCH_HEARTBEAT, watch_message
from jobledger_server.rpc.payloads import payloads_of
from jobledger_server.rpc.stream_age import StreamAge
from jobledger_server.watch.hub import WatchHub
from jobledger_server.watch.job_watch import JobUpdate

_Content = Literal["full", "basic", "outcome"]


@dataclass(frozen=True, slots=True)
class JobStreams:
    """Serves streams of WatchJob."""

    hub: WatchHub
    reads: Reads
    heartbeat: float
    max_age: float
    # Many watches of one job are sent the same.
    messages: SharedMessages

    # Writes instead of yielding: gRPC does not close a generator whose write failed (grpc#42295).
    async def serve(
        self, job_id: JobId, user_id: str, after_version: int, call: Call, *, full: bool
    ) -> None:
        """Serve one stream, until the job's terminal state is sent.

        Raises:
            JobNotFound: The job does not exist, is another user's, or was deleted.
            LimitExceeded: Too many watches are open, or too much waits to be read.
            StoreUnavailable: The database does not answer.
            Ending: The server is shutting down, or the stream reached its maximum age.
        """
        age = StreamAge(self.max_age)
        to_owner = call.caller.permissions.scope is None
        # Subscribe, then read: the watch keeps what is committed in between.
        with self.hub.subscribe(job_id, call.caller) as watch:
            read = await self.reads.job(job_id, user_id, call.caller, full=full)
            watch.sent_up_to(read.job.version)
            unsent = tuple(each for each in read.transitions if each.version > after_version)
            first = JobUpdate(read.job, unsent)
            last = first.last
            make = partial(watch_message, read.job, unsent, read.payloads, to_owner=to_owner)
            content: _Content = "full" if full else "basic"
            message = self.messages.get(_key(first, content, to_owner=to_owner), make)
            # The client may not read for a long time. It then holds only the message.
            del read, unsent, first, make
            await call.write(message, refuse=True)
            while not last:
                del message
                update = await watch.next_update(age.until_heartbeat(self.heartbeat))
                if update is None:
                    message = WATCH_HEARTBEAT
                else:
                    last = update.last
                    message = await self._message(update, full=full, to_owner=to_owner)
                    del update
                await call.write(message)

    async def _message(self, update: JobUpdate, *, full: bool, to_owner: bool) -> bytes:
        """Return the message of an update, with the outcome if that has payloads and is wanted."""
        job, transitions = update.job, update.transitions
        if not (full and job.outcome_bytes):
            make = partial(watch_message, job, transitions, to_owner=to_owner)
            return self.messages.get(_key(update, "basic", to_owner=to_owner), make)

        async def read() -> bytes:
            # For all watches that are sent it.
            (payloads,) = await payloads_of(self.reads, [job], SERVICE)
            if payloads is None:  # the job was deleted since, and its outcome with it
                return watch_message(job, transitions, to_owner=to_owner)
            outcome = Payloads(result=payloads.result, error_details=payloads.error_details)
            return watch_message(job, transitions, outcome, to_owner=to_owner)

        return await self.messages.read(_key(update, "outcome", to_owner=to_owner), read)


def _key(update: JobUpdate, content: _Content, *, to_owner: bool) -> Hashable:
    """Return what says all of a message's content."""
    job, versions = update.job, tuple(each.version for each in update.transitions)
    # Without a new version only the lease changes. In a restored database a version can be
    # another one, of another time.
    return content, to_owner, job.id, job.version, job.update_time, job.lease_expire_time, versions
