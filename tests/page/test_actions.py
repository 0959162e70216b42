"""What people do on the page: cancel, change, run again, delete, and pause a type."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from playwright.sync_api import Page, Response, expect

from jobledger import Client, JobStatus

Visit = Callable[..., Page]


def test_a_job_is_cancelled_run_again_and_deleted(visit: Visit, client: Client) -> None:
    job = client.create_job("actions", {"a": 1})
    page = visit(f"/jobs/{job.id}?user_id=ada")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_label("Reason").fill("not needed")
    page.get_by_role("button", name="Keep as it is").click()
    assert client.get_job(job.id).status is JobStatus.QUEUED
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_label("Reason").fill("not needed")
    page.get_by_role("button", name="Cancel the job").click()
    expect(page.locator(".state.big")).to_have_text("cancelled")
    expect(page.locator(".error-box").get_by_text("CANCELLED")).to_be_visible()
    assert client.get_job(job.id).cancel_reason == "not needed"
    page.get_by_role("button", name="Run again").click()
    page.get_by_role("button", name="Run it again").click()
    expect(page.locator(".state.big")).to_have_text("queued")
    expect(page.get_by_role("link", name=job.id)).to_be_visible()
    (again,) = client.list_jobs(origin_job_id=job.id)
    assert again.id in page.url
    page.get_by_role("link", name=job.id).click()
    expect(page.locator(".state.big")).to_have_text("cancelled")
    expect(page.get_by_role("link", name=again.id)).to_be_visible()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete the job").click()
    expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_focused()
    assert list(client.list_jobs(job_types=["actions"])) == [again]


def test_what_the_service_refuses_is_said_in_the_question(visit: Visit, client: Client) -> None:
    job = client.create_job("refused")
    client.cancel_job(job.id)
    page = visit(f"/jobs/{job.id}?user_id=ada")
    page.get_by_role("button", name="Run again").click()
    page.route("**/v1/jobs/*:rerun", lambda route: route.abort())
    page.get_by_role("button", name="Run it again").click()
    expect(page.get_by_role("alert")).to_have_text("The gateway does not answer.")
    expect(page.get_by_role("button", name="Run it again")).to_be_focused()
    page.unroute("**/v1/jobs/*:rerun")
    page.get_by_role("button", name="Run it again").click()
    expect(page.locator(".state.big")).to_have_text("queued")


def test_what_is_filtered_runs_again_after_a_count_and_a_sample(
    visit: Visit, client: Client
) -> None:
    failed = []
    for number in range(120):
        job = client.create_job("bulk", labels={"n": str(number % 2)})
        started = client.start_job(job.id, lease_duration=600)
        client.mark_failed(job.id, "broken", reason="BROKEN", attempt=started.attempt)
        failed.append(job.id)
    page = visit("/?job_types=bulk&labels.n=1&error_reasons=BROKEN")
    expect(page.locator(".count")).to_have_text("60 jobs")
    page.get_by_role("button", name="Run failed jobs again").click()
    expect(page.get_by_text("60 failed jobs would run again")).to_be_visible()
    expect(page.get_by_role("dialog").get_by_role("listitem")).to_have_count(10)
    assert sum(1 for _ in client.list_jobs(job_types=["bulk"])) == 120
    page.get_by_role("button", name="Run them again").click()
    expect(page.locator("#announcer")).to_have_text("60 of 60 run again.")
    page.get_by_role("button", name="Close").click()
    made = list(client.list_jobs(job_types=["bulk"], statuses=[JobStatus.QUEUED]))
    assert {job.origin_job_id for job in made} == set(failed[1::2])


def test_no_job_runs_again_that_a_filter_leaves_out(visit: Visit, client: Client) -> None:
    wanted = client.cancel_job(client.create_job("narrow", concurrency_key="narrow"))
    other_key = client.cancel_job(client.create_job("narrow", concurrency_key="other"))
    broken = client.create_job("narrow", concurrency_key="narrow")
    started = client.start_job(broken.id, lease_duration=600)
    client.mark_failed(broken.id, "broken", reason="BROKEN", attempt=started.attempt)
    page = visit("/?job_types=narrow&concurrency_key=narrow&cancelled=true")
    page.get_by_role("button", name="Run failed jobs again").click()
    expect(page.get_by_text("1 failed job would run again")).to_be_visible()
    page.get_by_role("button", name="Run them again").click()
    expect(page.locator("#announcer")).to_have_text("1 of 1 run again.")
    (made,) = client.list_jobs(job_types=["narrow"], statuses=[JobStatus.QUEUED])
    assert made.origin_job_id == wanted.id
    assert not list(client.list_jobs(origin_job_id=other_key.id))


def test_a_click_counts_though_what_is_around_it_changes_meanwhile(
    visit: Visit, client: Client
) -> None:
    def counts_both(response: Response) -> bool:
        return "/v1/stats" in response.url and any(
            one["jobType"] == "pressed" and one.get("ready") == "2"
            for one in response.json()["stats"]
        )

    job = client.create_job("pressed")
    page = visit("/?job_types=pressed")
    page.get_by_role("button", name="Pause pressed").hover()
    page.mouse.down()
    with page.expect_response(counts_both) as read:
        client.create_job("pressed")
    read.value.finished()
    page.evaluate("async () => await (await fetch('/healthz')).text()")
    page.mouse.up()
    expect(page.get_by_role("dialog", name="Pause pressed?")).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("row").filter(has_text=job.id).hover()
    page.mouse.down()
    client.create_job("pressed")
    expect(page.get_by_text("3 ready")).to_be_visible()
    page.mouse.up()
    expect(page.get_by_role("heading", level=1)).to_contain_text(job.id)


def test_a_question_ends_with_the_page_that_asked_it(visit: Visit, client: Client) -> None:
    job = client.cancel_job(client.create_job("left").id)
    page = visit("/?job_types=left")
    page.get_by_role("row").filter(has_text=job.id).get_by_role("link").click()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog", name="Delete this job?")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator(".count")).to_have_text("1 job")


def test_a_type_is_paused_with_a_reason_and_resumed(visit: Visit, client: Client) -> None:
    client.create_job("pausing")
    page = visit("/?job_types=pausing")
    panel = page.get_by_role("complementary", name="Job types")
    item = panel.get_by_role("listitem").filter(
        has=page.get_by_role("link", name="pausing", exact=True)
    )
    expect(item.get_by_text("1 ready")).to_be_visible()
    expect(item.get_by_text("no worker asks for it")).to_be_visible()
    item.get_by_role("button", name="Pause pausing").click()
    page.get_by_role("dialog").get_by_label("Reason").fill("the disk is full")
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(item.get_by_text("the disk is full")).to_be_visible()
    expect(item.get_by_role("button", name="Resume pausing")).to_be_focused()
    assert client.claim_jobs(["pausing"]) == []
    page.get_by_role("link", name="pausing").last.click()
    expect(page.get_by_text("The type pausing was paused")).to_contain_text("the disk is full")
    page.go_back()
    page.route("**/v1/jobTypes/*:resume", lambda route: route.abort())
    item.get_by_role("button", name="Resume pausing").click()
    expect(page.get_by_role("dialog").get_by_text("The gateway does not answer.")).to_be_visible()
    page.unroute("**/v1/jobTypes/*:resume")
    page.get_by_role("button", name="Try again").click()
    expect(item.get_by_role("button", name="Pause pausing")).to_be_focused()
    assert len(client.claim_jobs(["pausing"])) == 1
    expect(item.get_by_text("1 running")).to_be_visible()


def test_a_job_that_is_not_started_gets_another_priority_and_time(
    visit: Visit, client: Client
) -> None:
    # A browser leaves out seconds that are 0.
    in_an_hour = (datetime.now(UTC) + timedelta(hours=1)).replace(second=30)
    job = client.create_job("changed", schedule_time=in_an_hour)
    page = visit(f"/jobs/{job.id}?user_id=ada", timezone_id="America/New_York")
    page.get_by_role("button", name="Change").click()
    dialog = page.get_by_role("dialog", name="Change this job?")
    local = job.schedule_time.astimezone(ZoneInfo("America/New_York"))
    expect(dialog.get_by_label("Not before")).to_have_value(f"{local:%Y-%m-%dT%H:%M:%S}")
    dialog.get_by_label("Priority").fill("7")
    dialog.get_by_role("button", name="Change the job").click()
    expect(page.locator("#announcer")).to_have_text("The job was changed.")
    expect(page.locator("dt:text-is('Priority') + dd")).to_have_text("7")
    changed = client.get_job(job.id)
    assert (changed.priority, changed.schedule_time) == (7, job.schedule_time)
    page.get_by_role("button", name="Change").click()
    later = local.replace(microsecond=0) + timedelta(days=2)
    dialog.get_by_label("Not before").fill(f"{later:%Y-%m-%dT%H:%M:%S}")
    dialog.get_by_role("button", name="Change the job").click()
    expect(page.locator(".state.big")).to_contain_text("scheduled, in 2 d")
    changed = client.get_job(job.id)
    assert (changed.priority, changed.schedule_time) == (7, later.astimezone(UTC))
    page.get_by_role("button", name="Change").click()
    dialog.get_by_label("Not before").fill("")
    dialog.get_by_role("button", name="Change the job").click()
    expect(page.locator(".state.big")).to_have_text("queued")
    client.start_job(job.id, lease_duration=600)
    expect(page.locator(".state.big")).to_have_text("running")
    expect(page.get_by_role("button", name="Change")).to_be_hidden()


def test_a_change_does_not_undo_what_others_changed_meanwhile(visit: Visit, client: Client) -> None:
    job = client.create_job("twice")
    page = visit(f"/jobs/{job.id}?user_id=ada")
    page.get_by_role("button", name="Change").click()
    dialog = page.get_by_role("dialog", name="Change this job?")
    dialog.get_by_label("Priority").fill("2")
    client.update_job(job.id, priority=9)
    expect(page.locator("dt:text-is('Priority') + dd")).to_have_text("9")
    dialog.get_by_role("button", name="Change the job").click()
    expect(dialog.get_by_role("alert")).to_contain_text("version")
    assert client.get_job(job.id).priority == 9
