"""Which of the reports of a handler are sent."""

from hypothesis import given
from hypothesis import strategies as st

from jobledger.worker.session.reports import PendingReport, Report

REPORTS = st.tuples(
    st.none() | st.integers(0, 100), st.none() | st.sampled_from(["", "decoding", "encoding"])
)


def test_at_first_there_is_nothing_to_report():
    assert not PendingReport().report


def test_the_newest_report_replaces_the_ones_before():
    pending = PendingReport()
    pending.add(10, "a")
    pending.add(20, "b")
    assert pending.report == Report(20, "b")


def test_a_message_stays_if_a_later_report_has_none():
    pending = PendingReport()
    pending.add(10, "decoding")
    pending.add(20, None)
    assert pending.report == Report(20, "decoding")


def test_progress_never_decreases_and_a_new_message_is_sent_nevertheless():
    pending = PendingReport()
    pending.add(50, "a")
    pending.committed(pending.report)
    pending.add(30, "again")
    assert pending.report == Report(50, "again")


def test_a_report_offered_during_a_send_is_kept():
    pending = PendingReport()
    pending.add(10, "a")
    sent = pending.report
    pending.add(20, None)
    pending.committed(sent)
    assert pending.report == Report(20, None)


def test_an_empty_message_is_reported():
    pending = PendingReport()
    pending.add(None, "")
    assert pending.report
    pending.committed(pending.report)
    assert not pending.report


@given(st.lists(REPORTS | st.just("send")))
def test_the_last_sent_state_is_the_last_reported_state(steps):
    pending = PendingReport()
    known_progress, known_message = 0, ""
    progress, message = 0, ""
    for step in [*steps, "send"]:
        if step == "send":
            report = pending.report
            known_progress = known_progress if report.progress is None else report.progress
            known_message = known_message if report.message is None else report.message
            pending.committed(report)
        else:
            pending.add(*step)
            progress = max(progress, step[0] or 0)
            message = message if step[1] is None else step[1]
    assert (known_progress, known_message) == (progress, message)
