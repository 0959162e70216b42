"""Jobs on the page as they change."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from jobledger import Client, RetryPolicy
from tests.support.gateway_process import GatewayProcess
from tests.support.server_process import ServerProcess

Visit = Callable[..., Page]


def test_a_job_appears_its_bar_moves_and_it_ends(visit: Visit, client: Client) -> None:
    page = visit("/?job_types=live")
    expect(page.get_by_text("No job matches.")).to_be_visible()
    job = client.create_job("live")
    row = page.get_by_role("row").filter(has_text=job.id)
    expect(row.get_by_text("queued")).to_be_visible()
    started = client.start_job(job.id, lease_duration=600)
    for progress in (20, 60):
        client.update_progress(
            job.id, progress, progress_message=f"step {progress}", attempt=started.attempt
        )
        expect(row.get_by_role("progressbar")).to_have_js_property("value", progress)
        expect(row.get_by_text(f"step {progress}")).to_be_visible()
    client.mark_completed(job.id, attempt=started.attempt)
    expect(row.get_by_text("completed")).to_be_visible()
    expect(row.get_by_role("progressbar")).to_be_hidden()
    client.delete_job(job.id)
    expect(row).to_have_count(0)


def test_a_job_that_is_deleted_before_its_row_is_drawn_again_harms_nothing(
    visit: Visit, client: Client
) -> None:
    page = visit("/?job_types=drawn")
    job = client.create_job("drawn")
    row = page.get_by_role("row").filter(has_text=job.id)
    expect(row.get_by_text("queued")).to_be_visible()
    # The frame in which the rows are drawn, as at each second, comes after the deletion.
    page.evaluate(
        """() => {
            const next = window.requestAnimationFrame;
            window.held = [];
            window.requestAnimationFrame = (draw) => window.held.push(draw);
            window.release = () => {
                window.requestAnimationFrame = next;
                window.held.forEach((draw) => draw());
            };
            dispatchEvent(new Event("scroll"));
        }"""
    )
    client.delete_job(client.cancel_job(job.id).id)
    page.wait_for_function("() => window.held.length >= 2", polling=20)
    page.evaluate("() => window.release()")
    expect(row).to_have_count(0)


def test_a_job_that_will_be_tried_again_is_never_shown_as_failed(
    visit: Visit, client: Client
) -> None:
    policy = RetryPolicy(max_attempts=3, initial_backoff=3600)
    job = client.create_job("again", retry_policy=policy)
    page = visit("/?job_types=again")
    row = page.get_by_role("row").filter(has_text=job.id)
    expect(row.get_by_text("queued")).to_be_visible()
    page.evaluate(
        """() => {
            window.said = [];
            const look = () => window.said.push(document.querySelector(".rows .state").textContent);
            new MutationObserver(look).observe(document.querySelector(".rows"),
                { subtree: true, childList: true, characterData: true });
        }"""
    )
    started = client.start_job(job.id, lease_duration=600)
    expect(row.get_by_text("running")).to_be_visible()
    client.mark_failed(
        job.id, "no memory", reason="TRY_LATER", retryable=True, attempt=started.attempt
    )
    expect(row.get_by_text("waiting for retry, in")).to_be_visible()
    expect(row.get_by_text("TRY_LATER: no memory")).to_be_visible()
    said = page.evaluate("() => window.said")
    assert {text.split(",")[0] for text in said} <= {"queued", "running", "waiting for retry"}
    row.get_by_role("link").click()
    expect(page.get_by_role("heading", name="Why it waits")).to_be_visible()
    expect(page.get_by_text("Its next attempt starts not before")).to_be_visible()
    expect(page.get_by_text("Attempt 1")).to_contain_text("Attempt 1")
    expect(page.locator(".state.failed")).to_have_count(0)


def test_the_page_of_a_job_shows_all_that_belongs_to_it(visit: Visit, client: Client) -> None:
    job = client.create_job(
        "whole", {"scene": "harbour", "size": [640, 480]}, labels={"team": "blue"}
    )
    page = visit(f"/jobs/{job.id}?user_id=ada")
    expect(page.get_by_text("No worker has asked for jobs of the type whole")).to_be_visible()
    started = client.start_job(job.id, lease_duration=600, worker_id="worker-7")
    client.update_progress(job.id, 30, progress_message="a third", attempt=started.attempt)
    expect(page.get_by_role("progressbar")).to_have_js_property("value", 30)
    expect(page.get_by_text("a third")).to_be_visible()
    client.create_asset(
        job.id, "image/png", url="https://files.example/a.png", attempt=started.attempt
    )
    picture = page.get_by_role("link", name="a.png")
    picture.focus()  # as after it was opened in another tab: what is new is shown all the same
    client.create_asset(
        job.id, "text/x", url="javascript://files.example/%0Aalert(1)", attempt=started.attempt
    )
    client.mark_partial(
        job.id, {"pictures": 1}, error="one is black", reason="DARK", attempt=started.attempt
    )
    expect(page.locator("#announcer")).to_have_text("The job is now partial.")
    expect(picture).to_have_attribute("href", "https://files.example/a.png")
    expect(page.locator(".assets").get_by_text("javascript://")).to_be_visible()
    expect(picture).to_be_focused()
    assert page.locator("a[href^=javascript]").count() == 0
    for text in ("one is black", '"harbour"', "640", "pictures", "Now partial", "on worker-7"):
        expect(page.get_by_text(text).first).to_be_visible()
    expect(page.get_by_role("link", name="team=blue")).to_have_attribute(
        "href", "/?user_id=ada&labels.team=blue"
    )
    client.delete_job(job.id)
    expect(page.locator(".state.big")).to_have_text("deleted")
    expect(page.get_by_role("button", name="Run again")).to_be_hidden()


def test_a_job_that_was_deleted_during_a_long_outage_is_said_to_be(
    visit: Visit, client: Client
) -> None:
    job = client.cancel_job(client.create_job("missed").id)
    page = visit("/?job_types=missed")
    events = 'id: 1\ndata: {"synced": true}\n\n'
    page.route(
        "**/v1/events?*job_ids*",
        lambda route: route.fulfill(content_type="text/event-stream", body=events),
    )
    page.get_by_role("row").filter(has_text=job.id).get_by_role("link").click()
    expect(page.locator(".state.big")).to_have_text("cancelled")
    client.delete_job(job.id)
    # The service no longer knows where the page was, and lists only the jobs that there are.
    events = "event: reset\ndata: {}\n\n"
    expect(page.locator(".state.big")).to_have_text("deleted")


def test_a_killed_server_is_said_at_once_and_nothing_is_missed(
    visit: Visit, own_server: ServerProcess
) -> None:
    with (
        GatewayProcess(own_server.target) as gateway,
        Client(own_server.target, user_id="ada") as client,
    ):
        before = client.create_job("outage")
        gone = client.create_job("outage")
        page = visit("/", base=gateway.url)
        expect(page.get_by_role("row").filter(has_text=before.id)).to_be_visible()
        own_server.kill()
        expect(page.get_by_role("status").filter(has_text="connection is lost")).to_be_visible()
        assert page.evaluate("() => getComputedStyle(document.querySelector('main')).filter") == (
            "grayscale(1)"
        )
        own_server.start()
        client.cancel_job(gone.id)
        client.delete_job(gone.id)
        started = client.start_job(before.id, lease_duration=600)
        client.mark_failed(before.id, "broken", reason="BROKEN", attempt=started.attempt)
        later = client.create_job("outage")
        expect(page.get_by_text("connection is lost")).to_have_count(0)
        row = page.get_by_role("row").filter(has_text=before.id)
        expect(row.get_by_text("failed", exact=True)).to_be_visible()
        expect(page.get_by_role("row").filter(has_text=later.id)).to_be_visible()
        expect(page.get_by_role("row").filter(has_text=gone.id)).to_have_count(0)


def test_the_page_says_whether_it_is_connected_or_refused(
    visit: Visit, server: ServerProcess
) -> None:
    with GatewayProcess(server.target) as gateway:
        page = visit("/?job_types=gateway", base=gateway.url)
        link = page.locator("#link-state")
        expect(link).to_have_text("live")
        # A browser says so when it loses its last network: the gateway may still be reached.
        page.evaluate("() => dispatchEvent(new Event('offline'))")
        expect(link).to_have_text("live")
        lost = page.get_by_role("status").filter(has_text="connection is lost")
        gateway.kill()
        expect(lost).to_be_visible()
        # The gateway comes back, and no longer lets the caller in.
        page.route("**/v1/events?*", lambda route: route.fulfill(status=403, json={}))
        expect(page.get_by_role("heading", name="The service does not show this")).to_be_visible()
        expect(link).to_have_text("refused")
        expect(lost).to_have_count(0)


HIDE = """() => {
    Object.defineProperty(document, "hidden", { get: () => true, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""
SEE = """() => {
    delete document.hidden;
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_more_tabs_are_open_than_a_browser_opens_connections(visit: Visit, client: Client) -> None:
    tab = visit("/?job_types=tabs")
    others = []
    for _ in range(7):
        expect(tab.locator("#link-state")).to_have_text("live")
        tab.evaluate(HIDE)
        others.append(tab)
        tab = tab.context.new_page()
        tab.goto(others[0].url)
    client.create_job("tabs")
    expect(tab.locator(".count")).to_have_text("1 job")
    others[0].evaluate(SEE)
    expect(others[0].locator(".count")).to_have_text("1 job")
