"""Which requests are admitted, before anything of them is parsed."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobledger_gateway.guards import PROBES, SECURITY_HEADERS
from jobledger_gateway.limits import MAX_HEAD, MAX_PARAMETERS, MAX_QUERY
from jobledger_gateway.problems import HttpProblem, problem_response

_CLOSE = {"Connection": "close"}


class Admission:
    """Refuses requests of connections beyond the limit, and requests with too large heads.

    Probes of a platform are always admitted.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = scope.get("state", {}).get("connection")
        if scope["type"] != "http" or connection is None:
            await self._app(scope, receive, send)
            return
        connection.begin_request()
        try:
            try:
                _check(scope, is_refused=connection.is_refused)
            except HttpProblem as problem:
                response = problem_response(problem)
                response.headers.update(SECURITY_HEADERS)
                await response(scope, receive, send)
                return
            if _has_body(scope):
                receive, send = _closing(receive, send)
            await self._app(scope, receive, send)
        finally:
            connection.end_request()


def _check(scope: Scope, *, is_refused: bool) -> None:
    if is_refused and scope["path"] not in PROBES:
        headers = {"Retry-After": "5", **_CLOSE}
        raise HttpProblem(503, "there are too many connections", headers)
    query: bytes = scope["query_string"]
    if len(query) > MAX_QUERY:
        raise HttpProblem(414, f"the URL's query is longer than {MAX_QUERY} bytes", _CLOSE)
    # What starlette takes for a separator.
    if query.count(b"&") >= MAX_PARAMETERS:
        raise HttpProblem(414, f"the URL has more than {MAX_PARAMETERS} parameters", _CLOSE)
    size = len(scope["raw_path"]) + len(query)
    size += sum(len(name) + len(value) + len(b": \r\n") for name, value in scope["headers"])
    if size > MAX_HEAD:
        raise HttpProblem(431, f"the headers have more than {MAX_HEAD} bytes", _CLOSE)
    if scope["method"] in {"GET", "HEAD"} and _has_body(scope):
        raise HttpProblem(400, f"{scope['method']} has no body", _CLOSE)


def _has_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )


def _closing(receive: Receive, send: Send) -> tuple[Receive, Send]:
    """Close the connection after an answer that does not wait for the end of the body.

    uvicorn would read what is left of it, however long that is.
    """
    is_read = False

    async def noted(message: Message) -> None:
        if message["type"] == "http.response.start" and not is_read:
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        await send(message)

    async def received() -> Message:
        nonlocal is_read
        message = await receive()
        is_read = is_read or not message.get("more_body", False)
        return message

    return received, noted
