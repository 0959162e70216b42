"""What callers hold of a server: nothing may be left of a call once it has ended."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from jobledger_server.ledger.long_poll import LongPoll
from jobledger_server.metrics import Sources
from jobledger_server.rpc.access.lasting_calls import LastingCalls
from jobledger_server.rpc.incoming import RequestParser
from jobledger_server.rpc.lists import Lists
from jobledger_server.rpc.serving.calls import Calls
from jobledger_server.rpc.serving.drain import Drain
from jobledger_server.watch.feed_reader import FeedReader


@dataclass(frozen=True, slots=True)
class Holdings:
    """The parts of a server that keep something for each call."""

    sources: Sources
    calls: Calls
    drain: Drain
    lasting: LastingCalls
    parser: RequestParser
    lists: Lists
    reader: FeedReader
    long_poll: LongPoll

    def __call__(self) -> Mapping[str, int]:
        """Return by what it is how much callers hold now: nothing if nobody calls."""
        hub, waiters = self.sources.hub, self.sources.waiters
        held = Counter(
            calls=sum(self.calls.running.values()),
            calls_to_drain=self.drain.running,
            lasting_calls=len(self.lasting),
            parser_turns=self.parser.turns.held,
            list_turns=self.lists.turns.held,
            feed_reader_turns=self.reader.turns.held,
            releases=self.long_poll.releasing,
            polled_types=self.long_poll.pollers.open,
            claim_waiters=waiters.waiting_claims,
            awaited_types=sum(waiters.awaited().values()),
            watched=hub.watched,
            feed_watches=hub.feed_watches,
            holders=hub.holders,
            watched_output=self.sources.outputs.watched,
            buffered_output=self.sources.outputs.buffered_bytes,
            output_turns=self.sources.outputs.turns.held,
        )
        for admission in self.sources.admissions:
            held[admission.limit] += admission.held
        return +held
