"""What middleware and `retry_on` get of an exception that was raised in another process."""

import pickle
import threading

import pytest

from jobledger import RetryLater
from jobledger.worker.failures import failure
from jobledger.worker.handlers.raised import raised


class Renders(OSError):
    """Cannot be made again from its `args`."""

    def __init__(self, scene, frame):
        super().__init__(f"{scene}: frame {frame}")
        self.frame = frame


class Locked(Renders):
    """Has an attribute that cannot be pickled, too."""

    def __init__(self, scene, frame):
        super().__init__(scene, frame)
        self.lock = threading.Lock()


class WithResponse(ConnectionError):
    """Has an argument that cannot be pickled."""

    def __init__(self, response):
        super().__init__(response)

    def __str__(self):
        return "status 503"


class Doubles(ValueError):
    """Is pickled, and made again as another one."""

    def __init__(self, text):
        super().__init__(f"bad {text}")


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("even this")


class Busy(RetryLater):
    def __init__(self, host, *, after):
        super().__init__(f"{host} is busy", after=after)
        self.lock = threading.Lock()


class PicklesAsNothing(OSError):
    def __reduce__(self):
        return (int, ())


def arrived(error):
    """Return an exception as it arrives from another process."""
    return pickle.loads(pickle.dumps(sent(error))).exception()


def sent(error):
    """Return what is sent of an exception that is raised."""

    def fail():
        raise error

    try:
        fail()
    except BaseException as caught:  # noqa: BLE001
        return raised(caught)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "no scene", "castle"),
        KeyError("scene"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        RetryLater("busy", after=60),
        Renders("castle", 7),
        Locked("castle", 7),
        WithResponse(threading.Lock()),
        Doubles("scene"),
        PicklesAsNothing("no scene"),
        Mute(),
        Busy("db", after=60),
        SystemExit(3),
        ExceptionGroup("two", [OSError("a"), RetryLater("busy")]),
    ],
)
def test_an_exception_arrives_as_its_own_class_with_its_text(error):
    same = arrived(error)
    assert type(same) is type(error)
    assert failure(same, (OSError,)) == failure(error, (OSError,))
    assert f"{type(error).__name__}" in str(same.__cause__)
    if not isinstance(error, Mute):
        assert str(same) == str(error)


def test_what_can_be_pickled_of_an_exception_is_kept():
    same = arrived(Locked("castle", 7))
    assert same.frame == 7
    assert not hasattr(same, "lock")


def test_in_place_of_a_class_that_cannot_be_imported_the_nearest_one_arrives():
    class Local(ConnectionResetError):
        pass

    class LocalBusy(RetryLater):
        pass

    same = arrived(Local("reset by peer"))
    assert (type(same), str(same)) == (ConnectionResetError, "reset by peer")
    # The job's error names the class that was raised.
    assert failure(same, (ConnectionError,)).retryable
    assert failure(same).reason == "LOCAL"
    busy = failure(arrived(LocalBusy("no", after=5)))
    assert (busy.reason, busy.retryable, busy.retry_after) == ("LOCAL_BUSY", True, 5)


def test_an_exception_that_only_the_other_process_can_import_arrives_with_its_text(monkeypatch):
    message = sent(Renders("castle", 7))
    monkeypatch.delitem(globals(), "Renders")
    same = message.exception()
    assert (type(same), str(same)) == (Exception, "castle: frame 7")
    assert failure(same).reason == "RENDERS"
