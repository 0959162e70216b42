"""The page: static files, and the headers of each answer."""

from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from jobledger_gateway.problems import HttpProblem

INDEX: Final = "index.html"


def page_routes(folder: Path) -> list[BaseRoute]:
    """Return the routes of the page in a folder: its files, and index.html for its own paths."""

    async def index(_: Request) -> Response:
        if not (folder / INDEX).is_file():
            raise HttpProblem(404, "this gateway has no page")
        return FileResponse(folder / INDEX, headers={"Cache-Control": "no-cache"})

    return [
        Route("/", index, methods=["GET"]),
        Route("/jobs/{path:path}", index, methods=["GET"]),
        Mount("/static", _Files(directory=folder, check_dir=False)),
    ]


class _Files(StaticFiles):
    """Files that a browser asks for anew after each release."""

    async def check_config(self) -> None:
        """Check nothing: without a page no file is found."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response
