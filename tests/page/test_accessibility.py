"""axe finds nothing: the list, a job, a question, a refusal, in both color schemes."""

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from jobledger import Client

Visit = Callable[..., Page]


def problems(page: Page) -> list[str]:
    """Return what axe finds, one line for each element."""
    found = Axe().run(page).response["violations"]
    return [
        f"{rule['id']}: {node['html']} {node['failureSummary']}"
        for rule in found
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing(visit: Visit, client: Client, scheme: str, width: int) -> None:
    job_type = f"axe-{scheme}-{width}"
    failed = client.create_job(job_type, {"a": {"b": [1, "x", None, True]}}, labels={"a": "b"})
    started = client.start_job(failed.id, lease_duration=600, worker_id="w")
    client.create_asset(failed.id, "image/png", url="https://a.example/a", attempt=started.attempt)
    client.mark_failed(failed.id, "broken", reason="BROKEN", attempt=started.attempt)
    running = client.create_job(job_type)
    started = client.start_job(running.id, lease_duration=600)
    client.update_progress(running.id, 40, attempt=started.attempt)
    queued = client.create_job(job_type)
    client.admin.pause_job_type(job_type, "for a while")

    page = visit(f"/?job_types={job_type}", color_scheme=scheme, width=width)
    expect(page.locator(".count")).to_have_text("3 jobs")
    for summary in page.locator("summary").all():
        if not summary.evaluate("(one) => one.parentElement.open"):
            summary.click()
    expect(page.get_by_text("for a while").first).to_be_visible()
    assert problems(page) == []
    page.get_by_role("button", name="Run failed jobs again").click()
    expect(page.get_by_text("1 failed job would run again")).to_be_visible()
    assert problems(page) == []
    page.keyboard.press("Escape")
    page.get_by_role("row").filter(has_text=failed.id).get_by_role("link").click()
    expect(page.locator(".timeline .attempt, .timeline li").nth(3)).to_be_visible()
    assert problems(page) == []
    page.get_by_role("button", name="Delete").click()
    assert problems(page) == []
    page.keyboard.press("Escape")
    page.goto(page.url.replace(failed.id, queued.id))
    page.get_by_role("button", name="Change").click()
    assert problems(page) == []
    page.keyboard.press("Escape")
    page.goto(page.url.replace(queued.id, queued.id[:-1] + ("0" if queued.id[-1] != "0" else "1")))
    expect(page.get_by_role("heading", name="There is no such job")).to_be_visible()
    assert problems(page) == []
