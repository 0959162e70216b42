"""What a handler raises in a process of its own, on its way to the worker."""

import contextlib
import pickle
import traceback
from dataclasses import dataclass

from jobledger.worker.outcomes import Failed, RaisedElsewhere, failure


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception that can be sent.

    Args:
        text: its traceback.
        failed: what becomes of the job.
        pickled: the exception; empty if pickle cannot make the same one of it.
    """

    text: str
    failed: Failed
    pickled: bytes

    def exception(self) -> BaseException:
        """Return the exception, with the traceback as its cause."""
        elsewhere = RaisedElsewhere(self.text, self.failed)
        with contextlib.suppress(Exception):
            error = pickle.loads(self.pickled)  # noqa: S301
            error.__cause__ = elsewhere
            assert isinstance(error, BaseException)  # noqa: S101
            return error
        return elsewhere


def raised(error: BaseException) -> Raised:
    """Convert an exception while it is handled."""
    failed = failure(error)
    pickled = b""
    with contextlib.suppress(Exception):
        pickled = pickle.dumps(error)
        # An exception with an `__init__` of its own may not be made again, or be another one.
        if failure(pickle.loads(pickled)) != failed:  # noqa: S301
            pickled = b""
    return Raised(traceback.format_exc(), failed, pickled)
