"""The list of jobs: its filters, its length, its keys, and what it makes of hostile names."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from jobledger import Client, NewJob

Visit = Callable[..., Page]

MANY = 5000
SCRIPT = "<script>document.title='run'</script><img src=x onerror=alert(1)>"

SCROLL = """() => new Promise((resolve) => {
    const times = [];
    let most = 0;
    let before;
    const frame = (now) => {
        if (before !== undefined) times.push(now - before);
        before = now;
        most = Math.max(most, document.querySelectorAll(".rows .row").length);
        if (times.length === 240) return resolve({ times, most });
        scrollBy(0, 200);
        requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
})"""

FRAMES = """async (count) => {
    for (; count > 0; count -= 1) await new Promise(requestAnimationFrame);
}"""


def make(client: Client, job_type: str, count: int, user_id: str = "ada") -> list[str]:
    """Create jobs; return their ids, oldest first."""
    ids = []
    for first in range(0, count, 1000):
        jobs = [NewJob(job_type) for _ in range(min(1000, count - first))]
        ids += [job.id for job in client.create_jobs(jobs, user_id=user_id)]
    return ids


def test_five_thousand_jobs_scroll_with_few_rows_in_the_document(
    visit: Visit, client: Client
) -> None:
    ids = make(client, "many", MANY + 100, user_id="many")
    page = visit("/?user_id=many")
    expect(page.locator(".count")).to_contain_text("The newest 5,000 jobs.")
    measured = page.evaluate(SCROLL)
    times = sorted(measured["times"])
    print(  # noqa: T201  # the measurement
        f"\n{MANY} jobs, 240 frames of 200 px: median {times[120]:.1f} ms,"
        f" p95 {times[228]:.1f} ms, longest {times[-1]:.1f} ms, {measured['most']} rows at most"
    )
    assert measured["most"] < 60
    page.evaluate("() => scrollTo(0, document.body.scrollHeight)")
    expect(page.get_by_role("row").filter(has_text=ids[100])).to_be_visible()
    # What is read stays in its place while a job comes above it.
    row = page.get_by_role("row").filter(has_text=ids[2000])
    page.evaluate("(index) => scrollTo(0, index * 36)", MANY + 100 - 2000)
    expect(row).to_be_visible()
    top = row.bounding_box()["y"]
    rows = page.get_by_role("table")
    index = row.get_attribute("aria-rowindex")
    make(client, "many", 1, user_id="many")
    expect(rows.locator(f"[aria-rowindex='{int(index) + 1}']")).to_contain_text(ids[2000])
    assert row.bounding_box()["y"] == top


def test_a_list_that_cannot_be_read_is_asked_for_again_after_a_pause(
    visit: Visit, client: Client
) -> None:
    make(client, "older", 600)
    page = visit("/?job_types=older")
    expect(page.locator(".count")).to_have_text("600 jobs, and older ones below")
    asked: list[str] = []

    def refuse(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(status=429, json={"title": "too many requests"})

    page.route("**/v1/jobs?*page_token*", refuse)
    page.evaluate(
        """() => {
            window.held = [];
            window.later = window.setTimeout;
            window.setTimeout = (call) => void window.held.push(call);
        }"""
    )
    with page.expect_response("**/v1/jobs?*page_token*"):
        page.evaluate("() => scrollTo(0, document.body.scrollHeight)")
    page.evaluate(FRAMES, 30)
    assert len(asked) == 1
    page.unroute("**/v1/jobs?*page_token*")
    page.evaluate(
        """() => {
            window.setTimeout = window.later;
            window.held.forEach((call) => call());
        }"""
    )
    expect(page.locator(".count")).to_have_text("600 jobs")


def test_a_filter_is_a_link_and_holds_live(visit: Visit, client: Client) -> None:
    blue = client.create_job("filters", labels={"team": "blue"})
    red = client.create_job("filters", labels={"team": "red"})
    for job, reason in ((blue, "FIRST"), (red, "SECOND")):
        started = client.start_job(job.id, lease_duration=600)
        client.mark_failed(job.id, "broken", reason=reason, attempt=started.attempt)
    waiting = client.create_job("filters", labels={"team": "blue"})
    page = visit("/?job_types=filters")

    def shown() -> set[str]:
        return {
            job.id
            for job in (blue, red, waiting)
            if page.get_by_role("row").filter(has_text=job.id).count()
        }

    expect(page.locator(".count")).to_have_text("3 jobs")
    expect(page.locator("#announcer")).to_have_text("3 jobs")
    page.get_by_role("navigation").get_by_role("link", name="failed").click()
    expect(page.locator(".count")).to_have_text("2 jobs")
    assert page.url.endswith("/?job_types=filters&statuses=FAILED")
    page.get_by_text("Filter", exact=True).click()
    page.get_by_label("Label").fill("team=blue")
    page.get_by_label("Error reason").fill("FIRST")
    page.get_by_label("Error reason").press("Enter")
    expect(page.locator(".count")).to_have_text("1 job")
    assert shown() == {blue.id}
    # It enters the list when it becomes what the filter selects, without a reload.
    started = client.start_job(waiting.id, lease_duration=600)
    client.mark_failed(waiting.id, "broken", reason="FIRST", attempt=started.attempt)
    expect(page.locator(".count")).to_have_text("2 jobs")
    assert shown() == {blue.id, waiting.id}
    page.reload()
    expect(page.locator(".count")).to_have_text("2 jobs")
    page.get_by_role("link", name="Drop the filter team=blue").click()
    page.get_by_role("link", name="Drop the filter reason: FIRST").click()
    expect(page.locator(".count")).to_have_text("3 jobs")
    page.go_back()
    expect(page.locator(".count")).to_have_text("2 jobs")


CHOICES = [
    ("Unique key", "k", "unique_key=k", "unique key: k"),
    ("Request id", "r", "request_id=r", "request id: r"),
    ("Concurrency key", "disk", "concurrency_key=disk", "concurrency key: disk"),
    ("Worker", "w", "worker_id=w", "worker id: w"),
    ("Held by a worker", "yes", "held=true", "held: yes"),
    ("Cancelled", "no", "cancelled=false", "cancelled: no"),
    ("Held by a worker", "no", "held=false", "held: no"),
    ("Cancelled", "yes", "cancelled=true", "cancelled: yes"),
]


@pytest.mark.parametrize(("label", "entered", "query", "chip"), CHOICES)
def test_each_filter_of_the_service_is_in_the_form_and_in_the_address(
    visit: Visit, client: Client, label: str, entered: str, query: str, chip: str
) -> None:
    owner = query.replace("=", "-")
    held = client.create_job(
        "chosen", user_id=owner, unique_key="k", request_id="r", concurrency_key="disk"
    )
    client.start_job(held.id, worker_id="w", lease_duration=600)
    cancelled = client.create_job("chosen", user_id=owner)
    client.cancel_job(cancelled.id, user_id=owner)
    shown, hidden = (
        (cancelled, held) if query in {"held=false", "cancelled=true"} else (held, cancelled)
    )
    page = visit(f"/?user_id={owner}")
    expect(page.locator(".count")).to_have_text("2 jobs")
    page.get_by_text("Filter", exact=True).click()
    field = page.get_by_label(label, exact=True)
    if entered in {"yes", "no"}:
        field.select_option(entered)
    else:
        field.fill(entered)
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.locator(".count")).to_have_text("1 job")
    assert page.url.endswith(f"/?user_id={owner}&{query}")
    expect(page.get_by_role("row").filter(has_text=shown.id)).to_be_visible()
    expect(page.get_by_role("row").filter(has_text=hidden.id)).to_have_count(0)
    page.get_by_role("link", name=f"Drop the filter {chip}").click()
    expect(page.locator(".count")).to_have_text("2 jobs")
    assert page.url.endswith(f"/?user_id={owner}")


def test_a_list_of_held_jobs_follows_who_holds_them(visit: Visit, client: Client) -> None:
    job = client.create_job("followed")
    page = visit("/?job_types=followed&held=true")
    row = page.get_by_role("row").filter(has_text=job.id)
    expect(page.get_by_text("No job matches.")).to_be_visible()
    started = client.start_job(job.id, lease_duration=600)
    expect(row.get_by_text("running")).to_be_visible()
    client.mark_completed(job.id, attempt=started.attempt)
    expect(row).to_have_count(0)


def test_a_key_without_an_owner_asks_for_the_owner(visit: Visit, client: Client) -> None:
    job = client.create_job("keyed", unique_key="whose")
    page = visit("/?unique_key=whose")
    expect(page.get_by_role("heading", name="The service does not show this")).to_be_visible()
    page.get_by_label("Owner").fill("ada")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("row").filter(has_text=job.id)).to_be_visible()


def test_nothing_moves_under_the_mouse_when_the_panel_is_read(visit: Visit, client: Client) -> None:
    make(client, "still", 1)
    page = visit("/?job_types=still")
    panel = page.get_by_role("complementary", name="Job types")
    expect(panel.get_by_role("link", name="still")).to_be_visible()
    bar = page.get_by_role("navigation")
    left = bar.evaluate("(bar) => bar.getBoundingClientRect().left")
    page.route("**/v1/stats?*", lambda _: None)  # it is never answered
    bar.get_by_role("link", name="failed").click()
    expect(page.get_by_text("No job matches.")).to_be_visible()
    assert bar.evaluate("(bar) => bar.getBoundingClientRect().left") == left


def test_what_a_job_says_is_text(visit: Visit, client: Client) -> None:
    job = client.create_job("hostile", {SCRIPT: [SCRIPT]}, user_id=SCRIPT, labels={"name": SCRIPT})
    started = client.start_job(job.id, worker_id=SCRIPT, lease_duration=600)
    page = visit("/?job_types=hostile")
    row = page.get_by_role("row").filter(has_text=job.id)
    client.update_progress(job.id, 5, progress_message=SCRIPT, attempt=started.attempt)
    expect(row.get_by_text(SCRIPT).first).to_be_visible()
    client.mark_failed(job.id, SCRIPT, reason="HOSTILE", attempt=started.attempt)
    expect(row.get_by_text(f"HOSTILE: {SCRIPT}")).to_be_visible()
    row.get_by_role("link").click()
    for place in (".error-box", ".facts", ".timeline", ".tree"):
        expect(page.locator(place).get_by_text(SCRIPT).first).to_be_visible()
    assert page.locator("main img, main script").count() == 0
    assert page.title() == "failed · hostile · Jobledger"


def test_the_page_is_used_with_the_keyboard_alone(visit: Visit, client: Client) -> None:
    ids = make(client, "keys", 60)
    page = visit("/?job_types=keys")
    expect(page.locator(".count")).to_have_text("60 jobs")
    types = page.get_by_role("complementary", name="Job types")
    expect(types).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the jobs")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_focused()
    expect(types).to_be_visible()
    focused = page.locator(":focus")
    for _ in range(30):
        page.keyboard.press("Tab")
        expect(types.locator(":focus")).to_have_count(0)
        if "row-link" in (focused.get_attribute("class") or ""):
            break
    expect(focused).to_contain_text(ids[-1])
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(focused).to_contain_text(ids[-3])
    page.keyboard.press("End")
    expect(focused).to_contain_text(ids[0])
    expect(focused).to_be_in_viewport()
    page.keyboard.press("Home")
    for top in (10_000, 0):  # the focus stays while its row is out of sight, and when it is back
        page.evaluate("(top) => scrollTo(0, top)", top)
        page.evaluate(FRAMES, 3)
        expect(focused).to_contain_text(ids[-1])
    client.delete_job(client.cancel_job(ids.pop()).id)
    expect(focused).to_contain_text(ids[-1])  # the one that takes its place
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Cancel this job?")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Cancel the job")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".state.big")).to_have_text("cancelled")


def test_a_phone_scrolls_one_way_only(visit: Visit, client: Client) -> None:
    job = client.create_job("phone", {"long": "x" * 300}, labels={"a" * 60: "b" * 200})
    started = client.start_job(job.id, worker_id="w" * 100, lease_duration=600)
    client.update_progress(job.id, 50, progress_message="m" * 300, attempt=started.attempt)
    client.create_asset(job.id, "image/png", storage_path="s" * 300, attempt=started.attempt)
    client.mark_failed(job.id, "e" * 300, reason="R" * 60, attempt=started.attempt)
    for path in ("/?job_types=phone", f"/jobs/{job.id}?user_id=ada"):
        page = visit(path, width=390, height=780)
        expect(page.locator(".state.failed").first).to_be_visible()
        assert page.evaluate("() => document.documentElement.scrollWidth") == 390
    page = visit("/?job_types=phone", width=844, height=390)
    expect(page.locator(".rows")).to_have_css("height", "36px")
    page.set_viewport_size({"width": 390, "height": 844})  # it is turned: rows are higher
    expect(page.locator(".rows")).to_have_css("height", "60px")
