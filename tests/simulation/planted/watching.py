"""Bugs of watches: what is sent of the feed."""

from tests.simulation.planted.bug import Bug

BUGS = {
    "resume skips one": Bug(
        "a resumed watch starts one change too late",
        "rpc.jobs.feed_streams",
        "cursor = tokens.read(resume_token) if resume_token else start",
        """cursor = tokens.read(resume_token) if resume_token else start
        if resume_token:
            cursor = Cursor(cursor.seq + 1, cursor.listed)""",
    ),
    "resume repeats one": Bug(
        "a resumed watch starts one change too early",
        "rpc.jobs.feed_streams",
        "cursor = tokens.read(resume_token) if resume_token else start",
        """cursor = tokens.read(resume_token) if resume_token else start
        if resume_token:
            cursor = Cursor(max(0, cursor.seq - 1), cursor.listed)""",
    ),
    "gap ignored": Bug(
        "a commit after another server's is handed on at once",
        "watch.hub",
        "follows = changes and changes[0].seq == self.seq + 1",
        "follows = changes and changes[0].seq > self.seq",
    ),
    "early gap ignored": Bug(
        "kept commits are handed on although changes between them are missing",
        "watch.early_changes",
        "while (change := self._by_seq.pop(seq + 1, None)) is not None:",
        "while (change := self._by_seq.pop(min(self._by_seq, default=0), None)) is not None:",
    ),
    "tail skips one": Bug(
        "what other servers commit is read from one change too late",
        "watch.tail",
        "self._store.changes_after(known,",
        "self._store.changes_after(known + (head > known + 3),",
    ),
    "no polls": Bug(
        "the feed is polled only where another server has said so",
        "watch.tail",
        "async with asyncio.timeout(pause * random.uniform(0.75, 1.25)):",
        "async with asyncio.timeout(None):",
        gap="the lookout reads the head of the feed twice a second, and asks for a poll",
    ),
    "restart drops the buffer first": Bug(
        "watches end at a cursor that follows the buffer's restart",
        "watch.hub",
        """        self._end_all(FeedRestarted)
        self._early.clear()
        self._buffer.restart(seq)""",
        """        self._buffer.restart(seq)
        self._early.clear()
        self._end_all(FeedRestarted)""",
    ),
    "idle too soon": Bug(
        "a watch that read the table believes that nothing has come since",
        "watch.feed_watch",
        "self._idle = part.whole and self._reader.seq <= part.through",
        "self._idle = part.whole",
    ),
    "a page is the whole": Bug(
        "a watch takes a page of the table for all that there is",
        "watch.feed_reader",
        "whole=page.through == head",
        "whole=True",
        gap="the checker does not judge what has come before `synced`",
    ),
    "list moves on": Bug(
        "a watch that lists the active jobs goes on after the list, not after its beginning",
        "watch.feed_watch",
        "self._cursor = Cursor(after.seq, page.next_after)",
        "self._cursor = Cursor(self._reader.seq, page.next_after)",
    ),
    "floor too low": Bug(
        "the change buffer claims to have the change that it has just dropped",
        "watch.change_buffer",
        "self.floor = change.seq",
        "self.floor = change.seq - 1",
    ),
    "message of another cursor": Bug(
        "watches that end at the same cursor are sent the same message",
        "rpc.jobs.feed_streams",
        "key = part.after, at, len(changes), len(carriers), to_owner",
        "key = at, len(changes), len(carriers), to_owner",
    ),
    "read before subscribing": Bug(
        "a watch of one job misses what is committed while it reads the job",
        "rpc.jobs.job_streams",
        """        with self.hub.subscribe(job_id, call.caller) as watch:
            read = await self.reads.job(job_id, user_id, call.caller, full=full)""",
        """        read = await self.reads.job(job_id, user_id, call.caller, full=full)
        with self.hub.subscribe(job_id, call.caller) as watch:""",
    ),
    "transitions conflate": Bug(
        "a watch of one job keeps only the transitions of the newest change",
        "watch.job_watch",
        "self._transitions += [t for t in change.transitions if t.version > self._version]",
        "self._transitions = [t for t in change.transitions if t.version > self._version]",
    ),
    "offers dropped": Bug(
        "a watch of one job drops what was offered while it read an older version",
        "watch.job_watch",
        "if self._version <= version:",
        "if True:",
    ),
    "message of another version": Bug(
        "watches of one job that follow different versions are sent the same transitions",
        "rpc.jobs.job_streams",
        "job.id, job.version, job.update_time, job.lease_expire_time, versions",
        "job.id, job.version, job.update_time, job.lease_expire_time",
    ),
    "resumes after what was not sent": Bug(
        "an ended watch gives a cursor that follows the feed although it had more to send",
        "watch.feed_watch",
        """        self._cursor = self.cursor
        self._idle = False
        self._ending = ending""",
        """        self._cursor = Cursor(self._reader.seq)
        self._idle = False
        self._ending = ending""",
    ),
    "read of another owner": Bug(
        "watches of two owners that are at one place of the feed are sent the same jobs",
        "watch.feed_reader",
        "key = buffer.version, seq, user_id",
        "key = buffer.version, seq",
    ),
}
