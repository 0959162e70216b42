"""Writes the gateway's OpenAPI document from its table of calls and the protos' comments.

Run by `make generate`: `python -m scripts.openapi [FILE]`.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
)

from jobledger.version import __version__
from jobledger_gateway.app import OPENAPI
from jobledger_gateway.requests import FILTER
from jobledger_gateway.routes.calls import CALLS, Call
from scripts.reference.grpc_api import ENUM, FIELD, MESSAGE, METHOD, NESTED, PACKAGE, SERVICE, files

INTRO = """\
Jobledger over HTTP. Requests and answers are the messages of the gRPC API in protobuf's JSON \
mapping: names in camelCase, 64-bit integers as strings, fields that have their default left out. \
Input may have the names of the proto, too. In the query of a URL, and only there, the values of \
enums need no prefix: `statuses=FAILED`.
"""

ONE_JOB = """\
Watches a job as server-sent events, until its terminal state. The data of each event is a \
WatchJobResponse, its id the version of the job. Last comes the event `end`. A client that \
reconnects after it is answered 204.\
"""

MANY_JOBS = """\
Watches many jobs as server-sent events, without an end. The data of each event is a \
WatchJobsResponse without its token, which is the event's id. An event `reset` says that the \
service has refused the token of `Last-Event-ID`, and that a new listing follows.\
"""

EVENTS = {
    "/v1/jobs/{job_id}/events": ("WatchJob", ONE_JOB),
    "/v1/events": ("WatchJobs", MANY_JOBS),
}

OUTPUT = """\
Reads a stream of a job's output, by the reading half of the Durable Streams protocol; see \
WatchOutput. Without `offset`, `last_bytes` and `live` the answer has all that is stored, of \
whatever attempts, as a file; once the job has ended, `Range` asks for some of it. Otherwise it \
has at most 1 MiB of one attempt, and `Stream-Next-Offset` says where the next one begins.\
"""

OUTPUTS = {
    "/v1/jobs/{job_id}/output": ("ReadUnnamedOutput", " This stream has no name."),
    "/v1/jobs/{job_id}/output/{stream}": ("ReadOutput", ""),
}

OUTPUT_PARAMETERS = {
    "offset": "Where to begin: `-1` for the oldest output that is stored, `now` for the end, or a "
    "`Stream-Next-Offset`. Required with `live`, unless `last_bytes` says where.",
    "last_bytes": "In its place: so many bytes before the end.",
    "live": "`long-poll` waits for output, up to the gateway's heartbeat. `sse` sends server-sent "
    "events until nothing can follow: `data` with output and after each one `control`, whose JSON "
    "has `streamNextOffset`, `upToDate`, `streamClosed`, `attempt` and `truncatedBefore`.",
    "encoding": "`base64`: the events have bytes, also of a text. Those of other media types have "
    "them anyway, as the header `Stream-SSE-Data-Encoding` says.",
    "cursor": "The `Stream-Cursor` of the last answer, so that no cache repeats it.",
}

OUTPUT_HEADERS = {
    "Stream-Next-Offset": "Where the next piece begins.",
    "Stream-Up-To-Date": "`true`: this is all that there was.",
    "Stream-Closed": "`true`: this is all that there will be.",
    "Stream-Cursor": "To be sent with the next request, if this one was live.",
    "Jobledger-Attempt": "The attempt that wrote a piece.",
    "Jobledger-Truncated-Before": "Output before this offset is not stored any more.",
}

OUTPUT_ANSWERS = {
    "204": "There was no output within the time of a long poll; or an EventSource has read all.",
    "206": "A range of a file.",
    "304": "The client has this piece: its `ETag` is that of `If-None-Match`.",
    "410": "What `offset` says is not stored any more. `Jobledger-Truncated-Before` has the offset "
    "to read from.",
    "416": "The file has no such range.",
}

MORE_EVENTS = (
    ' An event `upstream` has `{"connected": false}` when the gateway has lost the service, and'
    " `true` when it has it back: what was missed follows. An event `error` has a Problem; the"
    " stream then ends. Comments are heartbeats."
)

SCALARS: Mapping[int, dict[str, Any]] = {
    FieldDescriptorProto.TYPE_STRING: {"type": "string"},
    FieldDescriptorProto.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptorProto.TYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptorProto.TYPE_INT64: {"type": "string", "format": "int64"},
    FieldDescriptorProto.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptorProto.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
}

WELL_KNOWN: Mapping[str, dict[str, Any]] = {
    ".google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    ".google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    ".google.protobuf.Struct": {"type": "object"},
}

PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "Why a request was refused (RFC 9457).",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string", "description": "The name of the status."},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "For people."},
        "reason": {
            "type": "string",
            "description": "The ErrorReason without its prefix, if the service refused it.",
        },
        "metadata": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "The facts that the ErrorReason names.",
        },
        "violations": {
            "type": "array",
            "description": "The fields that break their rules.",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "description": {"type": "string"}},
            },
        },
    },
}

LAST_EVENT_ID = {
    "description": "The id of the last event that was received: what follows it is sent.",
    "schema": {"type": "string"},
}


class Protos:
    """The messages, enums and methods of our protos, with their comments."""

    def __init__(self) -> None:
        self.messages: dict[str, DescriptorProto] = {}
        self.enums: dict[str, EnumDescriptorProto] = {}
        self.methods: dict[str, tuple[str, str]] = {}
        self.comments: dict[str, str] = {}
        for file in files():
            comments = {
                tuple(location.path): " ".join(location.leading_comments.split())
                for location in file.source_code_info.location
            }
            for number, message in enumerate(file.message_type):
                self._add(message, f".{PACKAGE}.{message.name}", (MESSAGE, number), comments)
            for number, enum in enumerate(file.enum_type):
                name = f".{PACKAGE}.{enum.name}"
                self.enums[name] = enum
                self.comments[name] = comments.get((ENUM, number), "")
            for number, service in enumerate(file.service):
                for index, method in enumerate(service.method):
                    self.methods[method.name] = (method.input_type, method.output_type)
                    path = (SERVICE, number, METHOD, index)
                    self.comments[method.name] = comments.get(path, "")

    def _add(
        self,
        message: DescriptorProto,
        name: str,
        path: tuple[int, ...],
        comments: Mapping[tuple[int, ...], str],
    ) -> None:
        self.messages[name] = message
        self.comments[name] = comments.get(path, "")
        for index, field in enumerate(message.field):
            self.comments[f"{name}.{field.name}"] = comments.get((*path, FIELD, index), "")
        for index, nested in enumerate(message.nested_type):
            self._add(nested, f"{name}.{nested.name}", (*path, NESTED, index), comments)

    def is_map(self, field: FieldDescriptorProto) -> bool:
        """Return whether a field is a map."""
        message = self.messages.get(field.type_name)
        return message is not None and message.options.map_entry


class Document:
    """Collects the operations and the schemas that they refer to."""

    def __init__(self, protos: Protos) -> None:
        self._protos = protos
        self._schemas: dict[str, Any] = {"Problem": PROBLEM}
        self.paths: dict[str, dict[str, Any]] = {}

    def add_call(self, call: Call) -> None:
        """Describe a call."""
        name = call.rpc.partition(".")[2]
        takes, returns = self._protos.methods[name]
        in_path, others = self._fields(takes, call.path)
        operation: dict[str, Any] = {
            "operationId": name,
            "description": self._protos.comments[name],
            "parameters": [self._parameter(takes, field, "path") for field in in_path],
        }
        if call.verb == "POST":
            schema = {"type": "object", "properties": self._properties(takes, others)}
            content = {"application/json": {"schema": schema}}
            operation["requestBody"] = {"content": content}
        else:
            operation["parameters"] += self._query(takes, others)
        answer: dict[str, Any] = {
            "description": self._protos.comments[returns],
            "content": {"application/json": {"schema": self._reference(returns)}},
        }
        if call.status == HTTPStatus.CREATED:
            location = {"description": "The path of the job.", "schema": {"type": "string"}}
            answer["headers"] = {"Location": location}
        answers = {str(call.status): answer}
        if call.status == HTTPStatus.CREATED:
            answers["200"] = {**answer, "description": "The same, if the job was there before."}
        self._add(call.verb, call.path, operation, answers)

    def add_events(self, path: str, name: str, description: str) -> None:
        """Describe an event stream."""
        takes, returns = self._protos.methods[name]
        in_path, others = self._fields(takes, path)
        operation: dict[str, Any] = {
            "operationId": name,
            "description": description + MORE_EVENTS,
            "parameters": [
                *(self._parameter(takes, field, "path") for field in in_path),
                *(self._parameter(takes, field, "query") for field in others),
                {"name": "Last-Event-ID", "in": "header", **LAST_EVENT_ID},
                {"name": "last_event_id", "in": "query", **LAST_EVENT_ID},
            ],
        }
        for parameter in operation["parameters"]:
            if parameter["name"] == "view":  # of the gateway's own: see routes/events.py
                described = parameter["description"]
                parameter["description"] = described.replace("Default: FULL", "Default: BASIC")
        self._reference(returns)
        stream = {"schema": {"type": "string"}}
        answers = {"200": {"description": "The events.", "content": {"text/event-stream": stream}}}
        if path.endswith("}/events"):
            answers["204"] = {"description": "The client has the last event: nothing follows."}
        self._add("GET", path, operation, answers)

    def add_output(self, path: str, name: str, more: str) -> None:
        """Describe a route of output, which is no message."""
        takes, _ = self._protos.methods["ReadOutput"]
        in_path, others = self._fields(takes, path)
        owner = [field for field in others if field.name == "user_id"]
        text = {"schema": {"type": "string"}}
        operation: dict[str, Any] = {
            "operationId": name,
            "description": OUTPUT + more,
            "parameters": [
                *(self._parameter(takes, field, "path") for field in in_path),
                *(self._parameter(takes, field, "query") for field in owner),
                *(
                    {"name": each, "in": "query", "description": said, **text}
                    for each, said in OUTPUT_PARAMETERS.items()
                ),
            ],
        }
        content = {"description": "Output.", "content": {"*/*": {"schema": {}}}}
        headers = {each: {"description": said, **text} for each, said in OUTPUT_HEADERS.items()}
        others_said = {status: {"description": said} for status, said in OUTPUT_ANSWERS.items()}
        self._add("GET", path, operation, {"200": {**content, "headers": headers}, **others_said})

    def text(self) -> str:
        """Return the document as JSON."""
        document = {
            "openapi": "3.1.0",
            "info": {"title": "Jobledger", "version": __version__, "description": INTRO.strip()},
            "paths": self.paths,
            "components": {
                "schemas": dict(sorted(self._schemas.items())),
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer"},
                    "watchToken": {
                        "type": "apiKey",
                        "in": "query",
                        "name": "token",
                        "description": "A watch token (`jlw_...`), for reading alone: an"
                        " EventSource cannot send a header.",
                    },
                },
            },
            # `{}`: a service without an access file asks for no token.
            "security": [{}, {"bearer": []}, {"watchToken": []}],
        }
        return json.dumps(document, indent=1, ensure_ascii=False) + "\n"

    def _add(
        self, verb: str, path: str, operation: dict[str, Any], answers: Mapping[str, Any]
    ) -> None:
        problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        refused = {"description": "The request was refused.", "content": problem}
        operation["responses"] = {**answers, "default": refused}
        if verb != "GET":
            operation["security"] = [{}, {"bearer": []}]
        self.paths.setdefault(path, {})[verb.lower()] = operation

    def _fields(
        self, message: str, path: str
    ) -> tuple[list[FieldDescriptorProto], list[FieldDescriptorProto]]:
        """Return the fields of a request that are in the path, and the others."""
        fields = self._protos.messages[message].field
        in_path = [field for field in fields if f"{{{field.name}}}" in path]
        return in_path, [field for field in fields if field not in in_path]

    def _query(
        self, message: str, fields: "list[FieldDescriptorProto]"
    ) -> Iterator[dict[str, Any]]:
        """Describe the parameters of a query: of a filter each field by its own name."""
        for field in fields:
            if field.name == FILTER:
                own = self._protos.messages[field.type_name].field
                yield from (self._parameter(field.type_name, each, "query") for each in own)
            else:
                yield self._parameter(message, field, "query")

    def _parameter(self, message: str, field: FieldDescriptorProto, place: str) -> dict[str, Any]:
        description = self._protos.comments[f"{message}.{field.name}"]
        schema = self._schema(field)
        name = field.name if place == "path" else field.json_name
        if self._protos.is_map(field):
            name, schema = f"{name}.KEY", {"type": "string"}
            description += " One parameter for each, with its key in the place of KEY."
        parameter: dict[str, Any] = {
            "name": name,
            "in": place,
            "description": description,
            "schema": schema,
        }
        if place == "path":
            parameter["required"] = True
        return parameter

    def _properties(
        self, message: str, fields: "list[FieldDescriptorProto] | None" = None
    ) -> dict[str, Any]:
        described = self._protos.messages[message].field if fields is None else fields
        return {
            field.json_name: {
                **self._schema(field),
                "description": self._protos.comments[f"{message}.{field.name}"],
            }
            for field in described
        }

    def _schema(self, field: FieldDescriptorProto) -> dict[str, Any]:
        if self._protos.is_map(field):
            value = self._protos.messages[field.type_name].field[1]
            return {"type": "object", "additionalProperties": self._schema(value)}
        if not field.type_name:
            schema = dict(SCALARS[field.type])
        elif field.type_name in WELL_KNOWN:
            schema = dict(WELL_KNOWN[field.type_name])
        else:
            schema = self._reference(field.type_name)
        if field.label == FieldDescriptorProto.LABEL_REPEATED:
            return {"type": "array", "items": schema}
        return schema

    def _reference(self, type_name: str) -> dict[str, Any]:
        name = type_name.removeprefix(f".{PACKAGE}.")
        if name not in self._schemas:
            described: dict[str, Any] = {"description": self._protos.comments[type_name]}
            self._schemas[name] = described
            if type_name in self._protos.enums:
                values = [value.name for value in self._protos.enums[type_name].value]
                described |= {"type": "string", "enum": values}
            else:
                described |= {"type": "object", "properties": self._properties(type_name)}
        return {"$ref": f"#/components/schemas/{name}"}


def document() -> str:
    """Return the OpenAPI document."""
    made = Document(Protos())
    for call in CALLS:
        made.add_call(call)
    for path, (name, description) in EVENTS.items():
        made.add_events(path, name, description)
    for path, (name, more) in OUTPUTS.items():
        made.add_output(path, name, more)
    for path, name, description in own_routes():
        answer = {"description": description, "content": {"application/json": {"schema": {}}}}
        operation = {"operationId": name, "responses": {"200": answer}, "security": [{}]}
        made.paths[path] = {"get": operation}
    return made.text()


def own_routes() -> Iterator[tuple[str, str, str]]:
    """Yield the routes of the gateway's own: path, name, and what is answered."""
    yield "/healthz", "Health", "The gateway serves. It says nothing of the service."
    yield "/readyz", "Readiness", "The gateway serves, and so does the service."
    yield "/openapi.json", "OpenAPI", "This document."


if __name__ == "__main__":
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else OPENAPI
    file.write_text(document(), encoding="utf-8")
