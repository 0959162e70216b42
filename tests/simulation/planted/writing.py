"""Bugs of output: what is appended, stored, dropped and sent to its readers."""

from tests.simulation.planted.bug import Bug

BUGS = {
    "output not fenced": Bug(
        "an attempt that has ended may still append",
        "domain.decisions",
        """    check_attempt(job, command.attempt)
    if job.status in TERMINAL:
        raise JobTerminal(job.id, job.status, JobStatus.PROCESSING.value)
    if job.status is not JobStatus.PROCESSING:
        raise illegal_transition(job, JobStatus.PROCESSING.value)
    # Those""",
        "    # Those",
    ),
    "repetition appended": Bug(
        "an append that is sent again is stored again",
        "domain.decisions",
        "if command.attempt == tail.attempt and 0 < command.number <= tail.number:",
        "if command.attempt == tail.attempt and 0 < command.number < tail.number:",
    ),
    "numbers of another attempt": Bug(
        "the first appends of an attempt are taken for repetitions of the one before",
        "domain.decisions",
        "if command.attempt == tail.attempt and 0 < command.number <= tail.number:",
        "if 0 < command.number <= tail.number:",
    ),
    "gap accepted": Bug(
        "an append may leave out the number of one that failed, which is then a repetition",
        "domain.decisions",
        "    if command.number > number + 1:",
        "    if False:",
    ),
    "output makes a version": Bug(
        "an append is a change of its job",
        "domain.decisions",
        "        job=after,\n        changed=False,\n        renewed=after != job,",
        "        job=_next_version(after, now),\n        changed=True,\n        renewed=True,",
    ),
    "refusal ignored": Bug(
        "output that is too much is appended although the creator wanted it refused",
        "domain.decisions",
        "if job.refuse_output and not has_room(",
        "if False and not has_room(",
    ),
    "nothing dropped": Bug(
        "output is stored without a bound",
        "domain.output",
        "if sum(counts.values()) <= most + most // SLACK:",
        "if True:",
    ),
    "longest stream emptied": Bug(
        "of a stream that is too long everything is dropped but its last piece",
        "domain.output",
        "yield OutputCut(job_id, name, tail.end - sizes[name], pieces[name])",
        "yield OutputCut(job_id, name, tail.end, pieces[name])",
    ),
    "newest piece dropped": Bug(
        "a cut drops the newest piece, too, so the stream begins anew",
        "sql.output_statements",
        '" AND old.start < (SELECT max(kept.start)',
        '" AND old.start <= (SELECT max(kept.start)',
        sqlite=True,
    ),
    "pieces joined over attempts": Bug(
        "what two attempts append in one commit is stored as of the first",
        "domain.output",
        "            and last[0].attempt == piece.attempt\n",
        "",
        gap="an attempt ends and the next one is claimed in two commits",
    ),
    "old end trusted": Bug(
        "after a commit that failed, a stream is believed to end where it did before",
        "sql.transaction",
        "        self._tails.discard(self._outputs)",
        "        for job_id, tails in self._outputs.items():\n"
        "            self._tails.put(job_id, tails)",
        sqlite=True,
    ),
    "output published before the commit": Bug(
        "output is handed to its readers that is not committed yet",
        "ledger.ledger",
        "                changes = []\n                if decisions:\n",
        "                changes = []\n"
        "                self._written(merged([e.output for e in decisions if e.output]))\n"
        "                if decisions:\n",
    ),
    "output published after the end": Bug(
        "readers are told of the end of a job before they are given its last output",
        "ledger.ledger",
        "            self._written(merged(pieces))\n        self._committed(changes)\n",
        "            self._committed(changes)\n            self._written(merged(pieces))\n"
        "        else:\n            self._committed(changes)\n",
        gap="before it closes a stream, a reader reads the table once more",
    ),
    "closed without a look": Bug(
        "a stream is closed without reading the table once more",
        "watch.outputs",
        "if await self._catch_up([stream]) or buffer.final is not None:",
        "if buffer.final is not None:",
    ),
    "closed without its job": Bug(
        "a stream is closed although its job was deleted before it was read",
        "watch.outputs",
        "if job_id not in await self._store.read_jobs([job_id], full=False):",
        "if False:",
    ),
    "gap in the buffer": Bug(
        "a buffer that is given later output goes on as if it had what is between",
        "watch.output_buffer",
        "        if self.end is None or piece.start > self.end:\n",
        "        if self.end is None:\n",
    ),
    "buffer claims what it dropped": Bug(
        "a buffer that begins anew does not say that it no longer has what was before",
        "watch.output_buffer",
        "        self.first = self.end = end\n",
        "        self.end = end\n",
    ),
    "dropped piece claimed": Bug(
        "a buffer claims to have the piece that it has just dropped",
        "watch.output_buffer",
        "        self.first = piece.end\n",
        "        self.first = piece.start\n",
    ),
    "old piece taken": Bug(
        "a buffer takes a piece that it had before",
        "watch.output_buffer",
        "        elif piece.start < self.end:\n            return False\n",
        "",
    ),
    "hint taken for the data": Bug(
        "where another server says that it has appended, a reader believes it has that already",
        "watch.outputs",
        "        watched = self._streams.keys()\n",
        "        watched = self._streams.keys()\n"
        "        for job_id in watched & (ids or ()):\n"
        "            for name in self._streams[job_id]:\n"
        "                buffer = self._buffers[job_id, name]\n"
        "                buffer.end = buffer.end and buffer.end + 48\n",
    ),
    "no polls of output": Bug(
        "output of other servers is read only where these have said so",
        "watch.outputs",
        "async with asyncio.timeout(poll_seconds if self._streams else None):",
        "async with asyncio.timeout(None):",
        gap="it costs time: a stream is read before it is closed",
    ),
    "rest of a piece skipped": Bug(
        "who begins within a piece is sent what follows it",
        "rpc.jobs.output_streams",
        "            within = True  # a piece, perhaps, and not at its beginning\n",
        "            within = False\n",
    ),
    "dropped without a word": Bug(
        "a reader is sent later output where earlier one was dropped, and not told",
        "rpc.jobs.output_streams",
        "truncated_before = start if start > cursor else 0",
        "truncated_before = 0",
    ),
    "attempts joined": Bug(
        "a message has output of several attempts as if it were of the first",
        "rpc.jobs.output_streams",
        "elif piece.attempt != attempt or piece.start != end:",
        "elif piece.start != end:",
    ),
    "output watch leaked": Bug(
        "a watch of output that ends leaves its buffer",
        "watch.outputs",
        "                if not self._watches[stream]:\n                    self._forget(stream)\n",
        "",
    ),
    "output outlives its job": Bug(
        "the output of a deleted job stays",
        "sql.batch",
        "                if job.output_streams:\n"
        "                    rows[statements.outputs.delete].append((job.id,))\n",
        "",
        sqlite=True,
    ),
    "streams forgotten": Bug(
        "a job does not name the streams of its output",
        "domain.decisions",
        "streams = {**streams, command.stream: command.content_type}",
        "streams = dict(streams)",
    ),
    "appends of the library not numbered": Bug(
        "the worker library sends appends without a number, so a repetition is stored again",
        "jobledger.worker.session.job_output",
        "data, stream.content_type, stream.number)",
        "data, stream.content_type, 0)",
    ),
    "write forgotten": Bug(
        "the worker library forgets what a handler writes while an append is under way",
        "jobledger.worker.session.job_output",
        "self._forget(stream, len(data) if refusal is None else len(stream.waiting))",
        "self._forget(stream, len(stream.waiting))",
    ),
    "finished before its output": Bug(
        "the worker library finishes a job without the output that still waits",
        "jobledger.worker.session.job_updates",
        "await self.output.end(MAX_RELEASE_WAIT if is_released else self.lease.duration)",
        "self.output.close()",
    ),
}
