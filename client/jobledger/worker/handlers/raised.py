"""What a handler raises in a process of its own, on its way to the worker."""

import contextlib
import pickle
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jobledger.worker.failures import RaisedElsewhere, failure
from jobledger.worker.outcomes import Failed


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception that can be sent.

    Args:
        text: its traceback.
        failed: what becomes of the job.
        pickled: the exception, or what comes closest to it.
    """

    text: str
    failed: Failed
    pickled: bytes

    def exception(self) -> BaseException:
        """Return the exception, with the traceback as its cause."""
        error: BaseException = Exception(self.failed.message)
        with contextlib.suppress(Exception):  # what one process imports, another may not
            error = pickle.loads(self.pickled)  # noqa: S301
        error.__cause__ = RaisedElsewhere(self.text, self.failed)
        return error


def raised(error: BaseException) -> Raised:
    """Convert an exception while it is handled."""
    failed = failure(error)
    text = traceback.format_exc()
    with contextlib.suppress(Exception):
        pickled = pickle.dumps(error)
        # An exception with an `__init__` of its own may not be made again, or be another one.
        if failure(pickle.loads(pickled)) == failed:  # noqa: S301
            return Raised(text, failed, pickled)
    for copy in _copies(error, failed.message):
        with contextlib.suppress(Exception):
            pickled = pickle.dumps(copy)
            if failure(pickle.loads(pickled)).message == failed.message:  # noqa: S301
                return Raised(text, failed, pickled)
    return Raised(text, failed, b"")


@dataclass(frozen=True, slots=True)
class _Copy:
    """Unpickled as an exception that was made without its `__init__`."""

    kind: type[BaseException]
    arguments: tuple[Any, ...]
    attributes: dict[str, Any]

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (self.kind, self.arguments, self.attributes)


def _make(
    kind: type[BaseException], arguments: tuple[Any, ...], attributes: dict[str, Any]
) -> BaseException:
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    error.__dict__.update(attributes)
    return error


def _copies(error: BaseException, message: str) -> Iterator[_Copy]:
    """Yield copies of an exception that cannot be pickled, those of its own class first.

    They lack the attributes that cannot be pickled; those of a base class stand in for a class
    that cannot be imported.
    """
    attributes = {name: value for name, value in vars(error).items() if _can_be_pickled(value)}
    for kind in type(error).__mro__:
        if issubclass(kind, BaseException):
            yield _Copy(kind, error.args, attributes)
            yield _Copy(kind, (message,), attributes)


def _can_be_pickled(value: object) -> bool:
    with contextlib.suppress(Exception):
        pickle.loads(pickle.dumps(value))  # noqa: S301
        return True
    return False
