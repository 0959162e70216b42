"""A connection that died without a word is found by keepalive, in 40 s.

All languages at once: it takes that long however many there are.
"""

from contextlib import ExitStack

import pytest

from tests.polyglot.dead_peer import DeadPeer
from tests.polyglot.ledger import Ledger, job_in
from tests.polyglot.programs import Jobs, Program
from tests.support.server_process import ServerProcess


@pytest.mark.timeout(180)
def test_keepalive_detects_a_dead_peer_of_a_watch(
    programs: list[Program], server: ServerProcess, ledger: Ledger, kind: str
) -> None:
    job = ledger.create(kind)
    with DeadPeer(server.target) as path, ExitStack() as stack:
        watchers = {
            program.name: stack.enter_context(
                Jobs(program, path.target).start("watch", user=kind, job=job.id)
            )
            for program in programs
        }
        for watcher in watchers.values():
            assert job_in(watcher.event()) == job
        path.die()
        ended = ledger.complete(ledger.start(job))
        for program in programs:
            watcher = watchers[program.name]
            event = watcher.event(within=70)
            assert job_in(event) == ended, program.name
            assert watcher.finish() == []
        assert path.connections == 2 * len(programs)
