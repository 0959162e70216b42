"""What the pages name exists: tests, files, settings, targets; what they copy is up to date."""

import ast
import importlib
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.support import forked, seed
from tests.support.creations import FIELDS
from tests.support.pages import (
    OBSERVABILITY,
    QUICKSTART,
    README,
    ROOT,
    SETTINGS,
    anchors,
    blocks,
    commands,
    links,
    pages,
    spans,
    text_of,
)

PROGRAMS = ("jobledger", "jobledger-server", "jobledger-gateway")
BENCH = ("-m", "benchmarks", "run", "unary")
MODULES = "tests.simulation", "pytest"  # the plugin's options are pytest's, too
OURS = {page: page.relative_to(ROOT).as_posix() for page in pages()}


def relative(page: Path) -> str:
    return OURS[page]


@cache
def help_of(*command: str) -> str:
    program, *arguments = command
    if program in PROGRAMS:
        return forked.run(program, *arguments, "--help", env=dict(os.environ)).stdout
    run = subprocess.run(
        [str(Path(sys.executable).with_name(program)), *arguments, "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=ROOT,
    )
    return run.stdout


@cache
def helps(program: str, *command: str) -> str:
    """Return the help of a program, or of a command, and of all commands below it."""
    text = help_of(program, *command)
    listed = text.partition("Commands:")[2].partition("\n\n")[0]
    names = re.findall(r"^  (\w+) ", listed, re.MULTILINE)
    assert names or command or "Commands:" not in text
    return "\n".join([text, *(helps(program, *command, name) for name in names)])


def flags_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


@cache
def functions_in(file: Path) -> set[str]:
    return set(re.findall(r"^ *(?:async )?def (\w+)\(", text_of(file), re.MULTILINE))


@pytest.mark.parametrize("page", pages(), ids=relative)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(r"(tests/[\w/]+\.py)::(\w+)", text_of(page))
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).exists() or name not in functions_in(ROOT / path)
    ]
    assert missing == []


@pytest.mark.parametrize("page", pages(), ids=relative)
def test_every_name_that_a_page_finds_in_a_file_is_in_that_file(page: Path) -> None:
    """As in "`decide` in [decisions.py](...)"."""
    named = re.findall(r"((?:`[\w.]+`(?:, | and )?)+) in \[[^\]]+\]\(([^)]+\.py)\)", text_of(page))
    missing = [
        f"{name} in {file}"
        for names, file in named
        for name in re.findall(r"(\w+)`", names)
        if not re.search(rf"\b{name}\b", text_of((page.parent / file).resolve()))
    ]
    assert missing == []


@pytest.mark.parametrize("page", pages(), ids=relative)
def test_every_link_has_a_target(page: Path) -> None:
    broken = []
    for link in links(page):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", [README, QUICKSTART], ids=relative)
def test_the_first_programs_are_the_examples(page: Path) -> None:
    shown = [block.text for block in blocks(page, "python")]
    examples = [
        ROOT / f"examples/{name}.py" for name in ("hello_task", "hello_worker", "hello_client")
    ]
    assert shown == [file.read_text(encoding="utf-8") for file in examples]


# Of gRPC, of SQLite and PostgreSQL, of OpenSSL; or with a name in their midst.
NOT_OURS = {
    "cannot use sslrootcert=",
    "the database is at revision none, this server needs",
    "and this server needs 3.35 or newer",
    "database disk image is malformed",
    'duplicate key value violates unique constraint "uq_jobs_user_id_request_id"',
}


def test_every_message_that_troubleshooting_explains_exists_in_the_code() -> None:
    sources = [file for folder in ("server", "client") for file in (ROOT / folder).rglob("*.py")]
    ours = "\n".join(
        str(node.value)
        for file in sources
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    symptoms = re.findall(
        r"^\| (.*?) \|", text_of(ROOT / "docs/operate/troubleshooting.md"), re.MULTILINE
    )
    said = {
        part.strip(" :,")
        for symptom in symptoms
        for message in re.findall(r"`([^`]+)`", symptom)
        for part in message.split("\N{HORIZONTAL ELLIPSIS}")
    }
    assert {m for m in said if " " in m and m not in ours} == NOT_OURS


@pytest.mark.parametrize("page", pages(), ids=relative)
def test_content_of_lists_is_indented_for_the_site(page: Path) -> None:
    """With fewer than four spaces the site ends the list; GitHub does not."""
    assert re.findall(r"^ {1,3}```.*$", text_of(page), re.MULTILINE) == []


@pytest.mark.parametrize("page", pages(), ids=relative)
def test_programs_of_a_page_import_only_existing_names(page: Path) -> None:
    for block in blocks(page, "python"):
        if block.text.startswith(("async def", "def", "class")) or "import" in block.text:
            for node in ast.walk(ast.parse(block.text)):
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith("jobledger"):
                    module = importlib.import_module(str(node.module))
                    assert [n.name for n in node.names if not hasattr(module, n.name)] == []


@pytest.mark.parametrize("page", pages(), ids=relative)
def test_every_variable_that_a_page_names_exists(page: Path) -> None:
    known = set(re.findall(r"JOBLEDGER_[A-Z_]+", "\n".join(map(helps, PROGRAMS)))) | {seed.VARIABLE}
    # _JOBLEDGER_COMPLETE is click's, for the completion of shells.
    assert set(re.findall(r"(?<!_)JOBLEDGER_[A-Z_]+", text_of(page))) <= known


@pytest.mark.parametrize("page", pages(), ids=relative)
def test_every_flag_that_a_page_names_exists(page: Path) -> None:
    """In a command, a flag of that program; standing alone, a flag of one of ours."""
    shown = [*commands(page), *spans(page)]
    for program in PROGRAMS:
        calls = re.compile(rf"(?:^|[\s(/]){program} (?P<rest>[^|;]*)")
        used = {
            f for line in shown for call in calls.finditer(line) for f in flags_in(call["rest"])
        }
        assert used <= flags_in(helps(program)), program
    alone = {flag for span in spans(page) if span.startswith("--") for flag in flags_in(span)}
    modules = [help_of("python", *BENCH), *(help_of("python", "-m", name) for name in MODULES)]
    assert alone <= flags_in("\n".join([*map(helps, PROGRAMS), *modules]))


def test_every_setting_of_the_server_is_explained() -> None:
    table = text_of(SETTINGS)
    settings = help_of("jobledger-server", "serve")
    assert flags_in(settings) - flags_in(table) <= {"--help"}
    for variable in re.findall(r"JOBLEDGER_[A-Z_]+", settings):
        assert f"`{variable}`" in table


def test_every_line_of_the_log_is_explained() -> None:
    table = text_of(OBSERVABILITY).partition("## Logs")[2].partition("\n## ")[0]
    call = re.compile(r"\b\w*log\.(?:debug|info|warning|error|exception)\(\s*\"([^\"]+)\"")
    events = {
        event
        for file in (ROOT / "server").rglob("*.py")
        for event in call.findall(file.read_text(encoding="utf-8"))
    }
    assert {"serving", "transition"} <= events
    assert {event for event in events if f"`{event}`" not in table} == set()


@pytest.mark.parametrize("page", pages(), ids=relative)
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    shown = "\n".join([*commands(page), *spans(page)])
    assert set(re.findall(r"^make ([a-z-]+)", shown, re.MULTILINE)) <= targets


def test_the_page_of_limits_has_each_text_that_a_job_is_created_with() -> None:
    page = text_of(ROOT / "docs" / "reference" / "limits.md")
    texts = [name for name, field in FIELDS.items() if field.cpp_type == field.CPPTYPE_STRING]
    assert [name for name in texts if f"`{name}`" not in page] == []
