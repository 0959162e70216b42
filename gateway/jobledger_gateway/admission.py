"""Which requests are admitted, before anything of them is parsed."""

from starlette.types import ASGIApp, Receive, Scope, Send

from jobledger_gateway.guards import PROBES
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
        with connection.request():
            try:
                _check(scope, is_refused=connection.is_refused)
            except HttpProblem as problem:
                await problem_response(problem)(scope, receive, send)
            else:
                await self._app(scope, receive, send)


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
