"""The OpenAPI document describes what is served."""

from collections.abc import Iterator
from typing import Any

from starlette.routing import Route

from jobledger.v1.job_service_pb2 import JobFilter
from jobledger_gateway.app import make_app
from jobledger_gateway.settings import Settings
from tests.support.http_client import Http

PAGE = {"/", "/jobs/{path:path}"}


async def test_every_route_is_described(http: Http) -> None:
    document = (await http.get("/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    served = {
        (route.path, method)
        for route in make_app(Settings()).routes
        if isinstance(route, Route) and route.path not in PAGE
        for method in {*(route.methods or ())} - {"HEAD"}
    }
    described = {
        (path, method.upper()) for path, methods in document["paths"].items() for method in methods
    }
    assert described == served


async def test_its_references_and_parameters_are_consistent(http: Http) -> None:
    document = (await http.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    used = {ref.removeprefix("#/components/schemas/") for ref in references(document)}
    assert used <= schemas.keys()
    assert schemas["Job"]["properties"]["version"]["type"] == "string"  # 64 bits
    ids = []
    for path, methods in document["paths"].items():
        for operation in methods.values():
            ids.append(operation["operationId"])
            parameters = operation.get("parameters", ())
            in_path = {each["name"] for each in parameters if each["in"] == "path"}
            assert {f"{{{name}}}" for name in in_path} == {
                f"{{{part.partition('}')[0]}}}" for part in path.split("{")[1:]
            }
            # What the comments of the protos say.
            assert all(each["description"] for each in parameters)
    assert len(ids) == len({*ids})


async def test_the_fields_of_a_filter_are_parameters_by_their_own_names(http: Http) -> None:
    document = (await http.get("/openapi.json")).json()
    named = {each["name"] for each in document["paths"]["/v1/jobs"]["get"]["parameters"]}
    filters = {field.json_name for field in JobFilter.DESCRIPTOR.fields} - {"labels"}
    assert named == {*filters, "labels.KEY", "userId", "pageSize", "pageToken", "view"}


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)
