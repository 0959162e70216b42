"""What handlers write their output with: streams, a handler for `logging`, and captured prints."""

import contextlib
import io
import logging
import re
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any, Final, Protocol, Self

LOG: Final = "log"
"""The stream that by convention has what a program says of itself."""

_NAME: Final = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]{0,63})?")
_CONTENT_TYPE: Final = re.compile(r"(?:[^\s/;]+/[^\s/;]+(?:;[ -~]*)?)?")
_MAX_CONTENT_TYPE: Final = 128


class Output(Protocol):
    """Where a run sends what is written: the service, or a test."""

    def add(self, stream: str, data: bytes, content_type: str = "") -> int:
        """Take as much as there is room for; return how many bytes. In any thread."""

    def drop(self, stream: str, size: int) -> None:
        """Take note that so many bytes are not sent. In any thread."""

    async def room(self) -> None:
        """Wait a moment for room."""

    def wait_for_room(self) -> bool:
        """Wait a moment for room, in a thread; return False at once in that of the event loop."""

    async def deliver(self, stream: str) -> bool:
        """Send at once what was written; wait a moment; return whether all of it is committed.

        Raises:
            JobledgerError: the service refuses the stream.
        """


class Writer(Protocol):
    """A job, for what may not raise: `print` and `logging`."""

    def put(self, data: bytes, stream: str) -> None:
        """Write, and wait for room where that does not block the event loop."""


WRITER: Final[ContextVar[Writer | None]] = ContextVar("jobledger_writer", default=None)
"""The job whose handler runs in this context."""


def checked_stream(stream: str) -> str:
    """Return the name of a stream. Raises ValueError if no stream can have it."""
    if not isinstance(stream, str) or not _NAME.fullmatch(stream):
        raise ValueError(
            f"stream: {stream!r:.100} is not at most 64 letters, digits, '.', '_' and '-', "
            "of which a letter or digit is the first"
        )
    return stream


def checked_content_type(content_type: str) -> str:
    """Return a content type. Raises ValueError if it is none."""
    is_short = len(content_type) <= _MAX_CONTENT_TYPE
    if not is_short or not _CONTENT_TYPE.fullmatch(content_type):
        raise ValueError(
            f"content_type: {content_type!r:.100} is not a media type, as text/plain; charset=utf-8"
        )
    return content_type


def encoded(data: str | bytes) -> bytes:
    """Return what is written as bytes. Raises TypeError for what is neither text nor bytes."""
    if isinstance(data, str):
        return data.encode("utf-8", "replace")
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise TypeError(f"data: {type(data).__name__} is neither a str nor bytes")


def line_of(text: str) -> str:
    """Return a text with an end of line."""
    return text if text.endswith("\n") else f"{text}\n"


class JobOutput:
    """A stream of a job's output, in the hands of an async handler; see ClaimedJob.output."""

    def __init__(self, write: Callable[[str | bytes, bool], Awaitable[None]], name: str) -> None:
        self._write = write
        self.name = name
        """The stream's name."""

    async def write(self, data: str | bytes, *, wait: bool = False) -> None:
        """Write; see ClaimedJob.write."""
        await self._write(data, wait)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: what was written is sent in any case."""


class BlockingJobOutput(io.TextIOBase):
    """A stream of a job's output, in the hands of a plain function; see ClaimedJob.output.

    It is a file to write to, of text and of bytes: `print(..., file=stream)`, `csv.writer(stream)`
    and `shutil.copyfileobj(process.stdout, stream)` work with it. What is written is sent soon, so
    `flush` does nothing.
    """

    def __init__(self, write: Callable[[str | bytes, bool], None], name: str) -> None:
        super().__init__()
        self._write = write
        self.name = name
        """The stream's name."""

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: str | bytes, *, wait: bool = False) -> int:
        """Write; return the number of characters or bytes. See ClaimedJob.write."""
        if self.closed:
            raise ValueError("write to a closed stream of output")
        self._write(data, wait)
        return len(data)


class JobLogHandler(logging.Handler):
    """Sends log records to the output of the job whose handler makes them.

        logging.getLogger().addHandler(JobLogHandler())

    One is enough for a worker, and for all of its jobs: a record belongs to the job in whose
    handler it is made, in the event loop or in a thread that has the handler's context, as those of
    `asyncio.to_thread` have. Other records are left out. It may wait while the service is away,
    but not in the event loop: there, what is too much is dropped.

    Args:
        stream: where to write.
        level: the least level, as in `logging.Handler`.

    Raises:
        ValueError: no stream can have this name.
    """

    def __init__(self, stream: str = LOG, level: int | str = logging.NOTSET) -> None:
        super().__init__(level)
        self._stream = checked_stream(stream)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def filter(self, record: logging.LogRecord) -> Any:
        """Leave out what is not of a job: before the handler's lock is taken."""
        return WRITER.get() is not None and super().filter(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        writer = WRITER.get()
        if writer is None:
            return
        try:
            writer.put(encoded(line_of(self.format(record))), self._stream)
        except Exception:  # noqa: BLE001  # as the handlers of Python do
            self.handleError(record)


class _Capture:
    def __init__(self, writer: Writer, stream: str) -> None:
        self.writer = writer
        self.stream = stream
        self.is_open = True


_CAPTURE: Final[ContextVar[_Capture | None]] = ContextVar("jobledger_capture", default=None)


class _Prints(io.TextIOBase):
    """Stands for sys.stdout: passes on what is printed, to a job where its prints are captured."""

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.original = original

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        capture = _CAPTURE.get()
        if capture is None or not capture.is_open:
            self.original.write(text)
        else:
            capture.writer.put(encoded(text), capture.stream)
        return len(text)

    def flush(self) -> None:
        self.original.flush()

    def fileno(self) -> int:
        return int(self.original.fileno())

    def isatty(self) -> bool:
        return False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def buffer(self) -> Any:
        return self.original.buffer


_installing = threading.Lock()
_captures = 0
_prints: _Prints | None = None


@contextlib.contextmanager
def capturing(writer: Writer, stream: str) -> Iterator[None]:
    """Send what is printed in this context to a stream of a job."""
    global _captures, _prints  # noqa: PLW0603  # sys.stdout is of the whole process, too
    capture = _Capture(writer, stream)
    with _installing:
        _captures += 1
        if _prints is None or sys.stdout is not _prints:
            _prints = _Prints(sys.stdout)
            sys.stdout = _prints
    token = _CAPTURE.set(capture)
    try:
        yield
    finally:
        capture.is_open = False
        _CAPTURE.reset(token)
        with _installing:
            _captures -= 1
            if not _captures and sys.stdout is _prints:
                sys.stdout = _prints.original
                _prints = None
