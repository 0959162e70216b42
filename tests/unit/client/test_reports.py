"""Which of the reports of a handler are sent."""

from hypothesis import given
from hypothesis import strategies as st

from jobledger.worker.session.reports import PendingReport, Report

REPORTS = st.tuples(
    st.none() | st.integers(0, 100),
    st.none() | st.sampled_from(["", "decoding", "encoding"]),
    st.none() | st.builds(lambda frame: {"frame": frame}, st.integers(0, 3)),
)


def test_a_checkpoint_offered_during_a_send_is_kept_though_python_calls_it_equal():
    pending = PendingReport()
    pending.add(None, None, {"done": 1})
    sent = pending.report
    pending.add(None, None, {"done": True})
    pending.committed(sent)
    assert pending.report.checkpoint == {"done": True}


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
    known_progress, known_message, known_checkpoint = 0, "", None
    progress, message, checkpoint = 0, "", None
    for step in [*steps, "send"]:
        if step == "send":
            report = pending.report
            known_progress = known_progress if report.progress is None else report.progress
            known_message = known_message if report.message is None else report.message
            known_checkpoint = report.checkpoint or known_checkpoint
            pending.committed(report)
        else:
            pending.add(*step)
            progress = max(progress, step[0] or 0)
            message = message if step[1] is None else step[1]
            checkpoint = step[2] or checkpoint
    assert (known_progress, known_message, known_checkpoint) == (progress, message, checkpoint)
