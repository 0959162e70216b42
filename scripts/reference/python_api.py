"""The Python API: every public name with its signature and its docstring."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).parents[2]

INTRO = """\
# Python API

Each name of `jobledger`, `jobledger.testing` and `jobledger.webhooks`, with its arguments, its \
result and the errors that it raises. [The Python client](../guides/python.md) and \
[Workers](../guides/workers.md) show how to use them.

This page is made from the docstrings by `make docs`.
"""

MODULES = ("jobledger", "jobledger.testing", "jobledger.webhooks")
# Who uses the calls of which class that the clients are made of.
GROUPS = {
    "TaskCalls": "owners of jobs: tasks",
    "OwnerWrites": "owners of jobs: create, cancel, rerun, delete",
    "OwnerReads": "owners of jobs: read and list",
    "OwnerWatches": "owners of jobs: watch and wait",
    "BulkCalls": "owners of jobs: many at once",
    "WebhookCalls": "owners of jobs: webhooks",
    "WorkerCalls": "workers without the worker library",
}
WHOLE = 100  # characters of a signature on one line


def page() -> str:
    """Return the page."""
    parts = [INTRO]
    package = griffe.load(
        "jobledger", search_paths=[str(ROOT / "client")], docstring_parser="google"
    )
    for module in MODULES:
        here: Any = package
        for part in module.split(".")[1:]:
            here = here[part]
        parts.append(f"## {module}\n")
        names = [str(name).strip("'\"") for name in here.exports]
        for name in sorted(names, key=str.lower):
            if name.startswith("__"):
                continue
            found = here[name]
            parts += section(name, found.final_target if found.is_alias else found)
    return "\n".join(parts)


def section(name: str, found: Any) -> Iterator[str]:
    """Yield the section of a public name."""
    yield f"### {name}\n"
    if found.is_function:
        yield signature(name, found)
    elif found.is_class:
        bases = list(public_bases(found))
        init = found.all_members.get("__init__")
        shown = list(init.parameters if init is not None else found.parameters)
        if shown and not is_error(found):
            yield signature(name, init if init is not None else found)
        elif bases:
            yield f"A subclass of {' and '.join(f'`{base}`' for base in bases)}.\n"
    elif found.value is not None and len(str(found.value)) < WHOLE:
        yield f"```python\n{name} = {found.value}\n```\n"
    yield text(found)
    if found.is_class:
        yield from members(name, found)


def is_error(found: Any) -> bool:
    return str(found.path).startswith("jobledger.errors.")


def public_bases(found: Any) -> Iterator[str]:
    """Yield the bases of a class, without private ones: what it has of them is shown as its own."""
    for base in found.bases:
        name = str(base)
        if name.startswith("_"):
            yield from public_bases(found.parent[name])
        else:
            yield name


def own_members(found: Any) -> dict[str, Any]:
    """Return the members of an error, with those of its private bases."""
    inherited = [found.parent[str(base)] for base in found.bases if str(base).startswith("_")]
    return {name: each for kind in (*inherited, found) for name, each in kind.members.items()}


def public_members(found: Any) -> dict[str, Any]:
    """Return the public members of a class."""
    return {
        name: member.final_target if member.is_alias else member
        for name, member in (own_members(found) if is_error(found) else found.all_members).items()
        if not name.startswith("_")
    }


def members(owner: str, found: Any) -> Iterator[str]:
    """Yield what a class has: its attributes as a table, its methods each with a heading."""
    public = public_members(found)
    attributes = [(n, m) for n, m in public.items() if not m.is_function]
    if attributes:
        rows = [
            f"| `{name}` | {code(member.annotation)} | {cell(member)} |"
            for name, member in attributes
        ]
        yield "\n".join(["| attribute | type | |", "| --- | --- | --- |", *rows]) + "\n"
    methods = [(n, m) for n, m in public.items() if m.is_function]
    if owner.startswith("Async") and methods:
        blocking = owner.removeprefix("Async")
        yield f"The methods are those of `{blocking}`; calls are awaited.\n"
        shown = public_members(found.package[blocking].final_target)
        methods = [(n, m) for n, m in methods if n not in shown]
    if any(method.parent.name in GROUPS for _, method in methods):
        order = [*GROUPS, found.name]
        methods.sort(key=lambda each: order.index(each[1].parent.name))
        yield by_group(owner, methods)
    for name, method in methods:
        yield f"#### {owner}.{name}\n"
        yield signature(name, method)
        yield text(method)


def by_group(owner: str, methods: list[tuple[str, Any]]) -> str:
    """Return a table of the methods, by who uses them."""
    rows = ["| for | methods |", "| --- | --- |"]
    for group, pairs in itertools.groupby(methods, lambda each: each[1].parent.name):
        links = [f"[`{name}`](#{owner.lower()}{name})" for name, _ in pairs]
        rows.append(f"| {GROUPS.get(group, 'the client itself')} | {', '.join(links)} |")
    if owner == "Client":
        rows.append(f"| operators | [`{owner.lower()}.admin`](#admin), with calls of its own |")
    return "\n".join(rows) + "\n"


def signature(name: str, function: Any) -> str:
    """Return a signature as code, one argument a line if it is long."""
    arguments = []
    keyword_only = False
    for p in function.parameters:
        if p.name in {"self", "cls"} or p.name.startswith("_"):
            continue
        kind = str(p.kind.value)
        if kind == "keyword-only" and not keyword_only:
            arguments.append("*")
            keyword_only = True
        stars = {"variadic positional": "*", "variadic keyword": "**"}.get(kind, "")
        keyword_only = keyword_only or stars == "*"
        typed = f"{stars}{p.name}" + (f": {p.annotation}" if p.annotation else "")
        default = f" = {p.default}" if p.default is not None and not stars else ""
        arguments.append(typed + default)
    returns = getattr(function, "returns", None)
    result = f" -> {returns}" if returns and str(returns) != "None" else ""
    line = f"{name}({', '.join(arguments)}){result}"
    if len(line) > WHOLE:
        inner = "".join(f"    {argument},\n" for argument in arguments)
        line = f"{name}(\n{inner}){result}"
    return f"```python\n{line}\n```\n"


def text(found: Any) -> str:
    """Return a docstring as Markdown: its text, then its sections as lists."""
    if found.docstring is None:
        return ""
    parts = []
    for part in found.docstring.parsed:
        kind = part.kind.value
        if kind == "text":
            parts.append(part.value)
        elif kind in {"parameters", "other parameters", "attributes"}:
            parts.append(listing("Arguments", [(f"`{v.name}`", v.description) for v in part.value]))
        elif kind in {"returns", "yields"}:
            said = " ".join(flat(v.description) for v in part.value)
            parts.append(f"**{kind.title()}:** {said}")
        elif kind == "raises":
            raised = [(code(v.annotation), v.description) for v in part.value]
            parts.append(listing("Raises", raised))
        elif kind == "examples":
            parts += [str(value) for _, value in part.value]
    return "\n\n".join(parts) + "\n"


def listing(title: str, entries: list[tuple[str, str]]) -> str:
    lines = [f"- {name}: {flat(description)}" for name, description in entries]
    return "\n".join([f"**{title}:**\n", *lines])


def cell(member: Any) -> str:
    return flat(member.docstring.value).replace("|", "\\|") if member.docstring else ""


def code(annotation: Any) -> str:
    return f"`{annotation}`".replace("|", "\\|") if annotation is not None else ""


def flat(words: str) -> str:
    return re.sub(r"\s+", " ", words).strip()
