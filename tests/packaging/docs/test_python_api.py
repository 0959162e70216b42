"""The reference of the Python API has all that its reader needs."""

import re

import pytest

from scripts.reference import python_api


@pytest.fixture(scope="module")
def page() -> str:
    return python_api.page()


def test_each_class_that_the_reference_refers_to_is_in_it(page: str) -> None:
    headings = set(re.findall(r"^### (\w+)$", page, re.MULTILINE))
    referred = {
        *re.findall(r"see ([A-Z]\w+)", page),
        *re.findall(r"Unpack\[(\w+)\]", page),
        *re.findall(r"\| `list\[([A-Z]\w+)\]` \|", page),
    }
    assert {"CallOptions", "RunOptions", "Report"} <= referred
    assert referred - headings == set()


def test_the_reference_has_what_only_the_async_client_can_do(page: str) -> None:
    assert "#### AsyncClient.open_work\n" in page
    assert "#### AsyncClient.get_job\n" not in page  # see Client


def test_the_methods_of_a_client_are_grouped_by_who_uses_them(page: str) -> None:
    _, _, client = page.partition("### Client\n")
    table = {
        who.strip(): re.findall(r"`(\w+)`", calls)
        for who, calls in re.findall(r"^\| ([\w ,:]+) \| (.*) \|$", client, re.MULTILINE)
    }
    assert {"submit", "result"} == set(table["owners of jobs: tasks"])
    assert "claim_jobs" in table["workers without the worker library"]
    listed = [name for names in table.values() for name in names]
    shown = re.findall(r"^#### Client\.(\w+)$", client, re.MULTILINE)
    assert shown == [name for name in listed if name in shown]


def test_the_reference_names_no_private_class_but_has_what_is_inherited_from_it(page: str) -> None:
    assert re.findall(r"`_\w+`", page) == []
    _, _, refusal = page.partition("### IllegalTransition\n")
    shown = refusal.partition("\n### ")[0]
    assert "A subclass of `JobledgerError`." in shown
    assert "| `allowed` |" in shown
