"""The reference of the Python API has all that its reader needs."""

import importlib
import inspect
import re
import tomllib

import pytest

from scripts.reference import python_api

INDEX = "python-api.md"


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return python_api.pages()


def test_each_public_class_has_a_page_and_all_names_are_in_the_list(pages: dict[str, str]) -> None:
    for module in python_api.MODULES:
        here = importlib.import_module(module)
        for name in here.__all__:
            if name.startswith("__"):
                continue
            if inspect.isclass(getattr(here, name)):
                assert pages[f"python/{name}.md"].startswith(f"# {name}\n")
            else:
                assert f"\n## {name}\n" in pages["python/functions.md"]
            assert f"| [`{name}`](python/" in pages[INDEX]


def test_each_page_is_in_the_menu_of_the_site(pages: dict[str, str]) -> None:
    menu = tomllib.loads((python_api.ROOT / "zensical.toml").read_text(encoding="utf-8"))
    (reference,) = (group["Reference"] for group in menu["project"]["nav"] if "Reference" in group)
    (listed,) = (one["Python API"] for one in reference if isinstance(one, dict))
    assert sorted(listed) == sorted(f"reference/{name}" for name in pages)


def test_what_a_page_refers_to_is_linked_and_there(pages: dict[str, str]) -> None:
    links = {
        (page, link)
        for page, text in pages.items()
        for link in re.findall(r"\]\((\w+)\.md", text)
        if page != INDEX
    }
    assert {(page, link) for page, link in links if f"python/{link}.md" not in pages} == set()
    assert ("python/Client.md", "JobOptions") in links
    assert ("python/FeedEvent.md", "Transition") in links
    assert ("python/HandlerRun.md", "Report") in links
    unlinked = {
        name
        for page, text in pages.items()
        if page != INDEX
        for name in re.findall(r"\bsee ([A-Z]\w+)", text)
    } & {name.removeprefix("python/").removesuffix(".md") for name in pages}
    assert unlinked == set()


def test_the_reference_has_what_only_the_async_client_can_do(pages: dict[str, str]) -> None:
    shown = pages["python/AsyncClient.md"]
    assert "## open_work\n" in shown
    assert "## get_job\n" not in shown  # see Client
    assert "[`Client`](Client.md)" in shown


def test_the_reference_names_no_private_class_but_has_what_is_inherited_from_it(
    pages: dict[str, str],
) -> None:
    assert re.findall(r"`_\w+`", "".join(pages.values())) == []
    refusal = pages["python/IllegalTransition.md"]
    assert "A subclass of [`JobledgerError`](JobledgerError.md)." in refusal
    assert "| `allowed` |" in refusal
