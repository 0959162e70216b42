"""Bugs of claims, leases and streams of work, and of what calls hold."""

from tests.simulation.planted.bug import Bug

BUGS = {
    "named jobs released": Bug(
        "a claim that says what its worker holds releases that, too",
        "ledger.lost_answers",
        "if held not in named]",
        "]",
    ),
    "claim misses changes": Bug(
        "a job that is cancelled while it is claimed is pushed without a signal",
        "rpc.workers.work_slots",
        "missed = self._hub.changes_since(self._queried)",
        "missed = ()",
        gap="a commit's answer would have to take as long as five statements of the cancellation",
    ),
    "reopened stream asks nothing": Bug(
        "a worker that brings its jobs to another stream is not told which it has lost",
        "rpc.workers.work_leases",
        "await self._renew(self._held.attempts())",
        "self._renewed = self._loop.time()",
    ),
    "start by id tried again": Bug(
        "a lease that is lost after a start by the job's id leaves an attempt, without a policy",
        "domain.leases",
        "if job.started_by_id and not job.max_attempts:",
        "if False:",
    ),
    "delay ignored": Bug(
        "a job that was created with a delay may be claimed at once",
        "domain.decisions",
        "return Instant(create_time + command.delay)",
        "return create_time",
    ),
    "every creation is new": Bug(
        "the answer to a creation does not say that the job was there before",
        "rpc.jobs.job_service",
        "pb.CreateJobResponse(existing=not decision.changed)",
        "pb.CreateJobResponse()",
    ),
    "loss untold": Bug(
        "a worker is not told that it has lost a lease",
        "watch.held_jobs",
        "self._signals[job_id, attempt] = Signal(job_id, attempt, lost=True)",
        "self.remove(job_id, attempt)",
    ),
    "cancellation untold": Bug(
        "a worker is told of a cancellation only if it hears of the job again",
        "watch.hub",
        "if held_jobs.offer(change):",
        "if change.job.cancel_request_time is None and held_jobs.offer(change):",
    ),
    "cancelled job does not say so": Bug(
        "a job that was cancelled does not say that it was",
        "rpc.messages",
        "message.cancelled = job.cancelled",
        "message.cancelled = False",
    ),
    "failed job says cancelled": Bug(
        "each job that failed by itself says that it was cancelled",
        "domain.job",
        "self.error is not None and self.error.reason == CANCELLED",
        "self.error is not None",
    ),
    "cancellation expires as a lease": Bug(
        "a job whose worker is lost after a cancellation was requested ends by its lost lease",
        "domain.leases",
        "    if job.cancel_request_time is not None:\n        error = _cancelled(job)\n    elif",
        "    if",
    ),
    "signal of the old attempt": Bug(
        "a signal of an earlier attempt reaches the worker of the next one",
        "watch.held_jobs",
        "if attempt is None or job.attempt < attempt:",
        "if attempt is None:",
        gap="who claims a job has heard how its last attempt ended; test_held_jobs.py holds it",
    ),
    "finish lost to its signal": Bug(
        "a worker is told that it lost the job that it is just finishing",
        "rpc.workers.work_leases",
        "return self._held.next_signal(unless=self._finishing)",
        "return self._held.next_signal(unless=())",
    ),
    "results out of order": Bug(
        "the results of a stream come in the order in which they are ready",
        "rpc.workers.work_results",
        """        while self._pending and (message := self._pending[0].message) is not None:
            self._weight -= self._pending.popleft().weight""",
        """        while ready := [each for each in self._pending if each.message is not None]:
            self._pending.remove(ready[0])
            self._weight -= ready[0].weight
            message = ready[0].message""",
    ),
    "unsent jobs kept": Bug(
        "jobs that were claimed and not sent are not released when the stream ends",
        "rpc.workers.work_slots",
        "        if self._unsent:\n            self._long_poll.release",
        "        if False:\n            self._long_poll.release",
        gap="these jobs come back when their leases end, as those of lost messages do",
    ),
    "claim of nobody kept": Bug(
        "jobs of a claim whose caller left during the commit are not released",
        "ledger.long_poll",
        "self._start(self._release_claimed(claiming))",
        "pass",
        gap="these jobs come back when their leases end, as those of lost answers do",
    ),
    "wake-up not handed on": Bug(
        "a claim that was woken and leaves wakes no other",
        "ledger.claim_waiters",
        "            if waiter.woken_for is not None:\n"
        "                self._wake_one(waiter.woken_for, waiter.oldest)",
        "            pass",
        gap="the lookout wakes another one half a second later",
    ),
    "turn leaked": Bug(
        "a caller that leaves at the moment of its turn keeps it",
        "admission.fair_queue",
        "if not waiter.cancelled():  # the turn was granted at the same moment",
        "if False:",
    ),
    "waiting leaked": Bug(
        "a caller that left while its command was processed is counted for ever",
        "ledger.batcher",
        "            self._items.release(pending.caller, pending.weight)\n"
        "            self._bytes.release(pending.caller, pending.bytes)\n            if",
        "            if not pending.future.cancelled():\n"
        "                self._items.release(pending.caller, pending.weight)\n"
        "            self._bytes.release(pending.caller, pending.bytes)\n            if",
    ),
    "watch leaked": Bug(
        "a watch of one job that ends leaves an empty entry",
        "watch.hub",
        "                if not watches[key]:\n                    del watches[key]\n",
        "",
    ),
    "bytes leaked": Bug(
        "the bytes of a refused large request are counted for ever",
        "rpc.serving.calls",
        "            self._parser.held.release(caller, held)\n        return None",
        "            pass\n        return None",
    ),
    "holder leaked": Bug(
        "a stream that ends leaves the jobs that it holds",
        "watch.held_jobs",
        "            for job_id, attempt in held_jobs.attempts():\n"
        "                held_jobs.remove(job_id, attempt)",
        "            pass",
    ),
}
