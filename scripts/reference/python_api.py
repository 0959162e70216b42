"""The Python API: a page for each public class, one for functions and constants, and their list."""

import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).parents[2]

INDEX = """\
# Python API

Each name of `jobledger`, `jobledger.testing` and `jobledger.webhooks`. A class has a page with \
its arguments, its methods and the errors that they raise. \
[The Python client](../guides/python.md) and [Workers](../guides/workers.md) show how to use them.

These pages are made from the docstrings by `make docs`.
"""
# Between these lines the menu of the site has the pages.
MENU_HEAD = '    { "Python API" = [\n      "reference/python-api.md",\n'
MENU_END = "    ] },\n"
FUNCTIONS = "functions"  # the page of what is no class

MODULES = ("jobledger", "jobledger.testing", "jobledger.webhooks")
# Who uses the calls of which class that the clients are made of, and for what.
GROUPS = {
    "TaskCalls": ("Producers", "tasks"),
    "OwnerWrites": ("Producers", "create, cancel, rerun, delete"),
    "BulkCalls": ("Producers", "many jobs at once"),
    "OwnerWatches": ("Watchers", "watch and wait"),
    "OwnerReads": ("Watchers", "read and list"),
    "WebhookCalls": ("Watchers", "webhooks"),
    "WorkerCalls": ("Workers", "jobs, without the worker library"),
}
ITSELF = ("The client itself", "")
WHOLE = 100  # characters of a signature on one line


def pages() -> dict[str, str]:
    """Return the pages, by their paths below `docs/reference`."""
    loader = griffe.GriffeLoader(
        search_paths=[str(ROOT / "client"), str(ROOT / "world")], docstring_parser="google"
    )
    package: Any = loader.load("jobledger")
    loader.load("jobledger_world")
    classes: dict[str, str] = {}
    others = ["# Functions and constants\n"]
    index = [INDEX]
    for module in MODULES:
        here: Any = package
        for part in module.split(".")[1:]:
            here = here[part]
        lists: dict[str, list[str]] = {"Classes": [], "Errors": [], "Functions and constants": []}
        for name in sorted((str(name).strip("'\"") for name in here.exports), key=str.lower):
            if name.startswith("__"):
                continue
            found = here[name].final_target if here[name].is_alias else here[name]
            if found.is_class:
                intro = f"From [`{module}`](../python-api.md).\n"
                classes[name] = "\n".join([f"# {name}\n", intro, *section(name, found)])
                link = f"python/{name}.md"
                kind = "Errors" if is_error(found) else "Classes"
            else:
                others += [f"## {name}\n", *section(name, found)]
                link, kind = f"python/{FUNCTIONS}.md#{name.lower()}", "Functions and constants"
            lists[kind].append(f"| [`{name}`]({link}) | {first_sentence(found)} |")
        index.append(f"## {module}\n")
        for kind, rows in lists.items():
            if rows:
                index.append("\n".join([f"| {kind.lower()} | |", "| --- | --- |", *rows]) + "\n")
    made = {f"python/{name}.md": linked(text, name, classes) for name, text in classes.items()}
    made[f"python/{FUNCTIONS}.md"] = linked("\n".join(others), "", classes)
    return {"python-api.md": "\n".join(index)} | made


def in_menu(menu: str, names: Iterable[str]) -> str:
    """Return the text of `zensical.toml` with these pages below the list of all names."""
    before, start, rest = menu.partition(MENU_HEAD)
    _, end, after = rest.partition(MENU_END)
    lines = "".join(f'      "reference/{name}",\n' for name in names)
    return f"{before}{start}{lines}{end}{after}"


def first_sentence(found: Any) -> str:
    """Return the first sentence of a docstring, for a row of a table."""
    words = flat(found.docstring.value.split("\n\n")[0]) if found.docstring else ""
    return re.split(r"(?<=\.) ", words)[0].replace("|", "\\|")


def linked(page: str, own: str, names: Any) -> str:
    """Link the names of other classes to their pages."""

    def link(found: re.Match[str]) -> str:
        others = [name for name in re.findall(r"\w+", found["span"]) if name in names]
        if not others or own in others:
            return found[0]
        return f"[{found[0]}]({others[0]}.md)"

    def see(found: re.Match[str]) -> str:
        name = found[1]
        return f"see [{name}]({name}.md)" if name in names and name != own else found[0]

    pieces = re.split(r"(^ *```.*?^ *```$)", page, flags=re.MULTILINE | re.DOTALL)
    for number in range(0, len(pieces), 2):  # every second piece is a fenced block
        text = re.sub(r"(?<!\[)`(?P<span>[\w\[\], .|\\]+)`", link, pieces[number])
        pieces[number] = re.sub(r"\bsee ([A-Z]\w+)", see, text)
    return "".join(pieces)


def section(name: str, found: Any) -> Iterator[str]:
    """Yield what a page says of a public name, below its heading."""
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
        yield from by_group(methods, blocking=not owner.startswith("Async"))
        return
    for name, method in methods:
        yield from described(name, method, "##")


def described(name: str, method: Any, heading: str) -> Iterator[str]:
    yield f"{heading} {name}\n"
    yield signature(name, method)
    yield text(method)


def by_group(methods: list[tuple[str, Any]], *, blocking: bool) -> Iterator[str]:
    """Yield the methods by who uses them: a table, then each group with a heading."""
    order = list(GROUPS)

    def place(each: tuple[str, Any]) -> int:
        parent = each[1].parent.name
        return order.index(parent) if parent in GROUPS else len(order)

    def group(each: tuple[str, Any]) -> tuple[str, str]:
        return GROUPS.get(each[1].parent.name, ITSELF)

    methods = sorted(methods, key=place)
    rows = ["| who | for | methods |", "| --- | --- | --- |"]
    for (who, what), pairs in itertools.groupby(methods, group):
        names = ", ".join(f"[`{name}`](#{name})" for name, _ in pairs)
        rows.append(f"| {who} | {what} | {names} |")
    if blocking:
        admin = "[`client.admin`](Admin.md), with calls of its own"
        rows.append(f"| Operators | pauses, limits, counts | {admin} |")
    yield "\n".join(rows) + "\n"
    for who, pairs in itertools.groupby(methods, lambda each: group(each)[0]):
        yield f"## {who}\n"
        for name, method in pairs:
            yield from described(name, method, "###")


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
