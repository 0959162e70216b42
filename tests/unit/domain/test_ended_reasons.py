"""The reasons that ended jobs are counted under: few, however many workers give."""

from jobledger_server.domain.job import Instant
from jobledger_server.domain.queues import (
    MAX_ENDED_PAIRS,
    MAX_ENDED_REASONS,
    OTHER_REASON,
    EndedReasons,
)

HOUR = 3_600_000_000
NOW = Instant(1_750_000_000_000_000 // HOUR * HOUR)


def test_a_type_has_a_bounded_number_of_reasons_in_an_hour() -> None:
    reasons = EndedReasons()
    names = [f"R{number}" for number in range(MAX_ENDED_REASONS + 5)]
    counted = [reasons.counted("render", name, NOW) for name in names * 2]
    assert counted == [*names[:-5], *[OTHER_REASON] * 5] * 2
    for name in ("", "LEASE_EXPIRED"):  # no reason, and one of the service's own
        assert reasons.counted("render", name, NOW) == name
    assert reasons.counted("export", "R1000", NOW) == "R1000"
    assert reasons.counted("render", "LATE", Instant(NOW + HOUR)) == "LATE"
    assert reasons.counted("render", "EARLY", Instant(NOW + HOUR - 1)) == "EARLY"


def test_all_types_together_have_a_bounded_number_of_reasons() -> None:
    reasons = EndedReasons()
    types = [f"t{number}" for number in range(MAX_ENDED_PAIRS + 1)]
    counted = [reasons.counted(job_type, "BROKEN", NOW) for job_type in types]
    assert counted == ["BROKEN"] * MAX_ENDED_PAIRS + [OTHER_REASON]
