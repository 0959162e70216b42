"""The gRPC API: every service, message and enum with the comments of its proto."""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

ROOT = Path(__file__).parents[2]
PACKAGE = "jobledger.v1"
MESSAGE, ENUM, SERVICE = 4, 5, 6  # numbers of FileDescriptorProto's fields, for paths of comments
FIELD, NESTED, METHOD, VALUE = 2, 3, 2, 2

INTRO = """\
# gRPC API

Each service, method, message and field, with its rules and its errors. [Clients by language]\
(../guides/clients.md) shows how to generate and configure a client.

This page is made from the comments of [the protos](../../protos/jobledger/v1) by `make docs`.
"""

Comments = Mapping[tuple[int, ...], str]


def files() -> list[FileDescriptorProto]:
    """Return the descriptors of our protos, with comments."""
    buf = Path(sys.executable).with_name("buf")
    built = subprocess.run([buf, "build", "-o", "-"], cwd=ROOT, capture_output=True, check=True)
    found = FileDescriptorSet.FromString(built.stdout).file
    return sorted((f for f in found if f.package == PACKAGE), key=lambda f: (not f.service, f.name))


def page() -> str:
    """Return the page."""
    parts = [INTRO]
    for file in files():
        comments = {
            tuple(location.path): prose(location.leading_comments)
            for location in file.source_code_info.location
            if location.leading_comments
        }
        for number, service in enumerate(file.service):
            parts.append(f"## {service.name}\n\n{comments[SERVICE, number]}\n")
            for index, method in enumerate(service.method):
                takes = ("stream " * method.client_streaming) + reference(method.input_type)
                returns = ("stream " * method.server_streaming) + reference(method.output_type)
                parts.append(f"### {method.name}\n\n`{method.name}`({takes}) returns ({returns})\n")
                parts.append(comments[SERVICE, number, METHOD, index] + "\n")
        for number, message in enumerate(file.message_type):
            parts += message_parts(message, (MESSAGE, number), comments, "")
        for number, enum in enumerate(file.enum_type):
            path = (ENUM, number)
            parts.append(f"## {enum.name}\n\n{comments.get(path, '')}\n")
            rows = [
                f"| `{value.name}` | {value.number} | {cell(comments, *path, VALUE, index)} |"
                for index, value in enumerate(enum.value)
            ]
            parts.append("\n".join(["| value | number | |", "| --- | --- | --- |", *rows]) + "\n")
    return "\n".join(part.replace("\n\n\n", "\n\n") for part in parts)


def message_parts(
    message: DescriptorProto, path: tuple[int, ...], comments: Comments, outer: str
) -> Iterator[str]:
    """Yield the sections of a message and of the messages inside it."""
    name = f"{outer}{message.name}"
    yield f"## {name}\n\n{comments.get(path, '')}\n"
    maps = {n.name: n for n in message.nested_type if n.options.map_entry}
    rows = [
        f"| `{field.name}` | {type_of(field, maps)} | {cell(comments, *path, FIELD, index)} |"
        for index, field in enumerate(message.field)
    ]
    if rows:
        yield "\n".join(["| field | type | |", "| --- | --- | --- |", *rows]) + "\n"
    for index, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            yield from message_parts(nested, (*path, NESTED, index), comments, f"{name}.")


def type_of(field: FieldDescriptorProto, maps: Mapping[str, DescriptorProto]) -> str:
    """Return a field's type as a proto writes it, linked where it is ours."""
    entry = maps.get(field.type_name.rpartition(".")[2])
    if entry is not None:
        key, value = entry.field
        return f"map&lt;{type_of(key, {})}, {type_of(value, {})}&gt;"
    if field.type_name:
        kind = reference(field.type_name)
    else:
        kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {kind}"
    return f"optional {kind}" if field.proto3_optional else kind


def reference(type_name: str) -> str:
    """Link one of our types to its section."""
    name = type_name.removeprefix(f".{PACKAGE}.")
    if name.startswith("."):
        return f"`{name[1:]}`"
    return f"[{name}](#{re.sub(r'[^a-z0-9_]', '', name.lower())})"


def prose(comment: str) -> str:
    """Return a comment as paragraphs of one line each."""
    paragraphs = re.split(r"\n\s*\n", comment.strip())
    return "\n\n".join(escape(" ".join(p.split())) for p in paragraphs)


def escape(text: str) -> str:
    """Let Markdown show what proto comments write, such as `<=` and `[0, 100]`."""
    pieces = re.split(r"(`[^`]*`)", text)
    outside = (piece.replace("<", "&lt;").replace("[", "\\[") for piece in pieces[::2])
    return "".join(a + b for a, b in zip_longest(outside, pieces[1::2], fillvalue=""))


def cell(comments: Comments, *path: int) -> str:
    return comments.get(path, "").replace("\n\n", " ").replace("|", "\\|")
