"""When a worker reports by calls instead of over its stream, and for how long."""

import grpc

from jobledger import Unavailable
from jobledger.worker.progress_reporter import LAST_DETOUR, Detour

FAILURE = Unavailable("no stream", code=grpc.StatusCode.UNAVAILABLE)


def test_a_detour_is_longer_each_time_and_ends_with_the_stream(clock):
    detour = Detour(clock)
    lengths = []
    for _ in range(12):
        assert detour.stream_is_due()
        detour.begins(FAILURE)
        detour.tried()
        started = clock.now
        while not detour.stream_is_due():
            clock.now += 0.5
        lengths.append(clock.now - started)
        detour.tried()
    assert lengths == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    detour.ends()
    detour.begins(FAILURE)
    clock.now += 1
    assert detour.stream_is_due()


def test_on_a_detour_only_one_report_at_a_time_tries_the_stream(clock):
    detour = Detour(clock)
    detour.begins(FAILURE)
    clock.now += 1
    assert [detour.stream_is_due() for _ in range(3)] == [True, False, False]
    # Given up, without a word on the stream: the next one tries.
    detour.tried()
    assert [detour.stream_is_due() for _ in range(2)] == [True, False]
    detour.tried()
    detour.ends()
    assert all(detour.stream_is_due() for _ in range(3))


def test_reports_that_were_under_way_together_make_one_detour(clock):
    detour = Detour(clock)
    for _ in range(50):
        detour.begins(FAILURE)
    clock.now += 1
    assert detour.stream_is_due()


def test_a_service_that_does_not_know_the_stream_is_not_asked_for_long(clock):
    detour = Detour(clock)
    detour.begins(FAILURE, unknown=True)
    clock.now += LAST_DETOUR - 1
    assert not detour.stream_is_due()
    clock.now += 1
    assert detour.stream_is_due()
