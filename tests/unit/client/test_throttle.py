"""Which of a handler's reports the service hears."""

from hypothesis import given
from hypothesis import strategies as st

from jobledger.worker.throttle import Report, Throttle

REPORTS = st.tuples(
    st.none() | st.integers(0, 100), st.none() | st.sampled_from(["", "decoding", "encoding"])
)


def test_a_new_throttle_has_nothing_to_report():
    assert not Throttle().pending


def test_the_newest_report_replaces_the_ones_before():
    throttle = Throttle()
    throttle.offer(10, "a")
    throttle.offer(20, "b")
    assert throttle.pending == Report(20, "b")


def test_a_message_stays_if_a_later_report_has_none():
    throttle = Throttle()
    throttle.offer(10, "decoding")
    throttle.offer(20, None)
    assert throttle.pending == Report(20, "decoding")


def test_progress_never_decreases_and_a_new_message_is_sent_nevertheless():
    throttle = Throttle()
    throttle.offer(50, "a")
    throttle.arrived(throttle.pending)
    throttle.offer(30, "again")
    assert throttle.pending == Report(50, "again")


def test_a_report_offered_during_a_send_is_kept():
    throttle = Throttle()
    throttle.offer(10, "a")
    sent = throttle.pending
    throttle.offer(20, None)
    throttle.arrived(sent)
    assert throttle.pending == Report(20, None)


def test_an_empty_message_is_reported():
    throttle = Throttle()
    throttle.offer(None, "")
    assert throttle.pending
    throttle.arrived(throttle.pending)
    assert not throttle.pending


@given(st.lists(REPORTS | st.just("send")))
def test_the_last_sent_state_is_the_last_reported_state(steps):
    throttle = Throttle()
    known_progress, known_message = 0, ""
    progress, message = 0, ""
    for step in [*steps, "send"]:
        if step == "send":
            report = throttle.pending
            known_progress = known_progress if report.progress is None else report.progress
            known_message = known_message if report.message is None else report.message
            throttle.arrived(report)
        else:
            throttle.offer(*step)
            progress = max(progress, step[0] or 0)
            message = message if step[1] is None else step[1]
    assert (known_progress, known_message) == (progress, message)
