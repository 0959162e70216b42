"""What a request over HTTP says: the message for the service, and who asks."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeVar, cast

import msgspec
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from starlette.requests import ClientDisconnect, Request

from jobledger.core.options import Headers
from jobledger.errors import JobledgerError
from jobledger_gateway.budget import Holding
from jobledger_gateway.limits import BUFFERED_BYTES
from jobledger_gateway.problems import HttpProblem, invalid_field
from jobledger_gateway.settings import MAX_BODY, MAX_SKIPPED, MAX_TOKEN, MAX_TRACE
from jobledger_gateway.turns import Caller

MessageT = TypeVar("MessageT", bound=Message)

WATCH_TOKEN: Final = "jlw_"  # noqa: S105
"""What a watch token begins with. Only such a token is accepted in a URL, which others may see."""

FILTER: Final = "filter"
"""The field of a request whose own fields are parameters of a URL, by their own names."""

NOT_FIELDS: Final = frozenset({"token", "last_event_id"})
"""Parameters of a URL that are no fields of the service's request."""

INLINE_BYTES: Final = 4 * 1024
"""Bytes of a body at most that is read before its caller is known, and parsed in the event loop."""

MAX_VALUES: Final = 64 * 1024
"""Values of a body at most, those in lists and objects counted. The service allows no more bytes of
a job's parameters than these have at least, and parsing them takes 0.2 seconds."""

MAX_ERROR_CHARACTERS: Final = 300

_FORWARDED: Final = ("traceparent", "tracestate")
_PRINTABLE: Final = re.compile(r"[ -~]*")


def credentials(request: Request) -> Headers:
    """Return what the service is told of who asks: the bearer token, and the trace.

    Raises:
        HttpProblem: the token in the URL is no watch token, or a header cannot be forwarded.
    """
    headers = [(name, value) for name in _FORWARDED if (value := request.headers.get(name))]
    given = request.headers.getlist("authorization")
    tokens = request.query_params.getlist("token")
    if len(given) + len(tokens) > 1:
        raise HttpProblem(400, "give one token, in the header Authorization or as ?token=")
    if tokens:
        if not tokens[0].startswith(WATCH_TOKEN) or request.method not in {"GET", "HEAD"}:
            raise HttpProblem(
                401,
                "?token= is for watch tokens and for reading alone:"
                " send others in the header Authorization",
                {"WWW-Authenticate": "Bearer"},
            )
        given = [f"Bearer {tokens[0]}"]
    headers += [("authorization", value) for value in given]
    for name, value in headers:
        longest = MAX_TRACE if name in _FORWARDED else MAX_TOKEN
        if len(value) > longest:
            raise HttpProblem(431, f"{name}: is longer than {longest} bytes")
        if not _PRINTABLE.fullmatch(value):
            raise HttpProblem(400, f"{name}: printable ASCII only")
    return tuple(headers)


def caller_of(request: Request) -> Caller:
    """Return who a request comes from."""
    token = request.headers.get("authorization") or request.query_params.get("token") or ""
    return Caller(request.client.host if request.client else "", token)


def from_query(kind: type[MessageT], request: Request) -> MessageT:
    """Read a message from a URL: `page_size=5&statuses=FAILED&labels.team=a`.

    Args:
        kind: the message's class.
        request: has some fields in its path. The others are in its query, and so are those of its
            `filter`: by their names in either spelling, repeated for lists; `labels.KEY=VALUE` for
            maps.

    Raises:
        InvalidField: a parameter is unknown, given twice, or has no such value.
    """
    fields: dict[str, Any] = dict(request.path_params)
    for name, text in request.query_params.multi_items():
        if name in NOT_FIELDS:
            continue
        head, dot, key = name.partition(".")
        field = _parameter(kind, head)
        if field is None or bool(dot) != _is_map(field):
            raise invalid_field(name, "there is no such parameter")
        if _is_map(field):
            entries = fields.setdefault(field.name, {})
            if key in entries:
                raise invalid_field(name, "is given twice")
            entries[key] = text
        elif field.is_repeated:
            fields.setdefault(field.name, []).append(_value(field, text))
        elif field.name in fields:
            raise invalid_field(name, "is given twice")
        else:
            fields[field.name] = _value(field, text)
    message = kind()
    for name, value in fields.items():
        # One at a time, so that the error names it.
        try:
            ParseDict({name: value} if _field(kind, name) else {FILTER: {name: value}}, message)
        except ParseError as error:
            raise invalid_field(name, str(error)) from None
    return message


async def read_body(
    request: Request,
    held: Holding,
    *,
    seconds: float,
    before_large: Callable[[], Awaitable[None]],
) -> bytes:
    """Read a request's body.

    Args:
        request: the request.
        held: what counts for the body.
        seconds: how long the body may take.
        before_large: called before more than INLINE_BYTES are kept. It may refuse that.

    Raises:
        HttpProblem: the body is too large, too slow, or incomplete; or bodies of others are.
        JobledgerError: `before_large` has raised it. What is left of the body was read.
    """
    parts: list[bytes] = []
    size = 0
    held.become(min(_declared_length(request), BUFFERED_BYTES))
    refusal: JobledgerError | None = None
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                if size <= INLINE_BYTES < size + len(chunk):
                    try:
                        await before_large()
                    except JobledgerError as error:
                        refusal = error
                size += len(chunk)
                if size <= MAX_BODY and refusal is None:
                    held.become(max(held.amount, size))
                    parts.append(chunk)
                elif size > MAX_SKIPPED:
                    break
    except TimeoutError:
        raise HttpProblem(408, f"the body took longer than {seconds:g} s") from None
    except ClientDisconnect:
        raise HttpProblem(400, "the body is incomplete") from None
    if refusal is not None:
        raise refusal
    if size > MAX_BODY:
        raise HttpProblem(413, f"the body is longer than {MAX_BODY} bytes")
    return b"".join(parts)


def _declared_length(request: Request) -> int:
    """Return a body's length; of one that comes in chunks, as much as any could have."""
    if "transfer-encoding" in request.headers:
        return MAX_BODY
    return int(request.headers.get("content-length", 0))


def from_body(kind: type[MessageT], request: Request, body: bytes) -> MessageT:
    """Read a message from a path and a JSON body, which may be empty.

    Raises:
        HttpProblem: the body is not JSON.
        InvalidField: it is not such a message.
    """
    given = request.path_params
    if names := [name for name in request.query_params if name not in NOT_FIELDS]:
        raise invalid_field(names[0], "belongs into the body")
    fields: Any = {}
    if body:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise HttpProblem(415, "send the body as Content-Type: application/json")
        if _has_too_many_values(body):
            raise HttpProblem(413, f"the body has more than {MAX_VALUES} values")
        try:
            fields = json.loads(body, parse_constant=_no_constant, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            raise HttpProblem(400, f"the body is not JSON: {error}") from None
        if not isinstance(fields, dict):
            raise HttpProblem(400, "the body is not a JSON object")
    named = set(given)
    for name in fields:
        field = _field(kind, name)
        if field is not None and field.name in named:
            raise invalid_field(name, "is given twice")
        named.add(field.name if field else name)
    message = kind()
    try:
        ParseDict({**fields, **given}, message)
    except (ParseError, RecursionError) as error:
        raise invalid_field("body", str(error)[:MAX_ERROR_CHARACTERS]) from None
    return message


def _parameter(kind: type[Message], name: str) -> FieldDescriptor | None:
    """Return the field that a parameter of a URL names: one of the message, or of its filter."""
    own, filters = _field(kind, name), _field(kind, FILTER)
    if filters is None or filters.message_type is None:
        return own
    return None if own is filters else own or _field(GetMessageClass(filters.message_type), name)


def _field(kind: type[Message], name: str) -> FieldDescriptor | None:
    by_name, by_camelcase = kind.DESCRIPTOR.fields_by_name, kind.DESCRIPTOR.fields_by_camelcase_name
    found = by_name.get(name) or by_camelcase.get(name)
    return cast("FieldDescriptor | None", found)


def _is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def _value(field: FieldDescriptor, text: str) -> Any:
    if field.enum_type is not None:
        return _enum_value(field.enum_type, text)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return {"true": True, "false": False}.get(text, text)
    return text


def _enum_value(kind: EnumDescriptor, text: str) -> str:
    """Return the full name for a name without its prefix, as `FAILED` for JOB_STATUS_FAILED."""
    prefix = kind.values[0].name.removesuffix("UNSPECIFIED")
    return prefix + text if prefix + text in kind.values_by_name else text


def _has_too_many_values(body: bytes) -> bool:
    """Return whether a body has more than MAX_VALUES values, if it is JSON.

    `json` would keep the event loop waiting for several times as long as msgspec: neither lets
    other threads run before it has read all of a list.
    """
    # Each value but the first of its list or object follows a comma.
    if sum(map(body.count, (b",", b"[", b"{"))) <= MAX_VALUES:
        return False
    try:
        containers: list[Any] = [[msgspec.json.decode(body)]]
    except (msgspec.DecodeError, RecursionError):
        return False  # `json` says what is wrong with it
    count = 0
    while containers:
        container = containers.pop()
        count += len(container)
        if count > MAX_VALUES:
            return True
        values = container.values() if isinstance(container, dict) else container
        containers += [each for each in values if isinstance(each, dict | list)]
    return False


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no number")


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        key.encode()  # half a surrogate pair, which protobuf cannot look up, is a ValueError
        if key in result:
            raise ValueError(f"{key!r} occurs twice")
        result[key] = value
    return result
