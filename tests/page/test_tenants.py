"""Tokens in the page's address: each sees what it is for, and nothing else."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from jobledger import Client
from tests.support.gateway_process import GatewayProcess

Visit = Callable[..., Page]


def test_two_tenants_see_their_own_jobs_alone(
    visit: Visit, client: Client, gateway: GatewayProcess
) -> None:
    jobs, tokens = {}, {}
    for tenant in ("tenant-a", "tenant-b"):
        jobs[tenant] = client.create_job("shared", {"secret": 1}, labels={"tenant": tenant})
        tokens[tenant] = client.create_watch_token(labels={"tenant": tenant}).token
    for tenant, other in (("tenant-a", "tenant-b"), ("tenant-b", "tenant-a")):
        page = visit(f"/#token={tokens[tenant]}")
        mine = page.get_by_role("row").filter(has_text=jobs[tenant].id)
        expect(mine).to_be_visible()
        assert page.url == f"{gateway.url}/"
        started = client.start_job(jobs[tenant].id, lease_duration=600)
        client.update_progress(jobs[tenant].id, 40, attempt=started.attempt)
        expect(mine.get_by_role("progressbar")).to_have_js_property("value", 40)
        expect(page.get_by_role("row")).to_have_count(2)  # the heads, and one job
        expect(page.get_by_role("button")).to_have_count(0)
        mine.get_by_role("link").click()
        expect(page.locator(".state.big")).to_have_text("running")
        client.mark_completed(jobs[tenant].id, attempt=started.attempt)
        expect(page.locator(".state.big")).to_have_text("completed")
        expect(page.locator(".timeline").get_by_text("Now completed")).to_be_visible()
        expect(page.get_by_role("button")).to_have_count(0)
        assert page.get_by_text("secret").count() == 0
        page.goto(f"{gateway.url}/jobs/{jobs[other].id}?user_id=ada")
        expect(page.get_by_role("heading", level=1)).to_have_text("There is no such job")


def test_a_token_for_one_job_shows_that_job(visit: Visit, client: Client) -> None:
    job = client.create_job("single")
    client.create_job("single")
    token = client.create_watch_token(job.id).token
    page = visit(f"/#token={token}")
    expect(page.get_by_role("row").filter(has_text=job.id)).to_be_visible()
    expect(page.get_by_role("row")).to_have_count(2)


def test_a_token_that_is_refused_is_asked_for_again(visit: Visit, client: Client) -> None:
    page = visit("/#token=jlw_wrong")
    expect(page.get_by_role("heading", name="The service does not show this")).to_be_visible()
    job = client.create_job("asked", labels={"asked": "1"})
    token = client.create_watch_token(labels={"asked": "1"}).token
    page.get_by_label("Token").fill(f"\u200b{token} ")  # as some programs copy it
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("row").filter(has_text=job.id)).to_be_visible()
