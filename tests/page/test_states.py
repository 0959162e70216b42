"""The page and <jobledger-progress> show the state that the Python client shows."""

from collections.abc import Callable

from playwright.sync_api import Page

from tests.support.display_states import CASES


def test_the_page_and_the_component_show_the_states_of_the_table(
    visit: Callable[..., Page],
) -> None:
    page = visit("/")
    page.add_script_tag(url="/static/jobledger-progress.js")
    shown = page.evaluate(
        """async (jobs) => {
            const { stateOf } = await import("/static/states.js");
            const component = customElements.get("jobledger-progress");
            return jobs.map((job) => [stateOf(job).key, component.stateOf(job)]);
        }""",
        [case["job"] for case in CASES],
    )
    assert shown == [[case["key"]] * 2 for case in CASES]


def test_the_words_for_a_state_are_those_of_the_table(visit: Callable[..., Page]) -> None:
    page = visit("/")
    said = page.evaluate(
        """async (jobs) => {
            const { stateOf } = await import("/static/states.js");
            return jobs.map((job) => stateOf(job).text.split(",")[0]);
        }""",
        [case["job"] for case in CASES],
    )
    assert said == [case["state"].lower() for case in CASES]
