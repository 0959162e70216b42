"""<jobledger-progress>, in the example application and in a page with a strict policy."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from jobledger import Client, JobStatus
from tests.support.gateway_process import GatewayProcess
from tests.support.ports import free_port
from tests.support.server_process import ServerProcess

Visit = Callable[..., Page]
EXAMPLE = Path(__file__).parents[2] / "examples" / "web_app.py"


@pytest.fixture
def application(server: ServerProcess) -> Iterator[tuple[str, list[str]]]:
    """Run the example; return its origin, and the arguments of the gateway that it names."""
    port, listen = free_port(), f"127.0.0.1:{free_port()}"
    origin = f"http://127.0.0.1:{port}"
    environment = {
        **os.environ,
        "PORT": str(port),
        "GATEWAY": f"http://{listen}",
        "JOBLEDGER_SERVER": server.target,
    }
    with subprocess.Popen([sys.executable, EXAMPLE], env=environment) as process:
        try:
            deadline = time.monotonic() + 60
            while not _accepts(port):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield origin, ["--listen", listen, "--cors-origin", origin]
        finally:
            process.kill()


def _accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def test_the_example_starts_a_job_for_its_user_and_shows_it_to_its_end(
    visit: Visit, server: ServerProcess, application: tuple[str, list[str]]
) -> None:
    origin, arguments = application
    with Client(server.target) as client, GatewayProcess(server.target, arguments) as gateway:
        page = visit("/", base=origin)
        page.get_by_role("button", name="Greet me").click()
        bar, status = page.get_by_role("progressbar"), page.get_by_role("status")
        expect(page.get_by_text("queued")).to_be_visible()
        (job,) = client.list_jobs(job_types=["greet"], all_users=True)
        client.start_job(job.id, lease_duration=600)
        client.update_progress(job.id, 40, progress_message="<b>step</b> 2", attempt=1)
        expect(bar).to_have_attribute("aria-valuenow", "40")
        expect(page.get_by_text("running, 40 %")).to_be_visible()
        expect(page.get_by_text("<b>step</b> 2", exact=True)).to_be_visible()
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()

        gateway.kill()
        expect(status).to_have_text("connection lost, trying again")
        expect(page.get_by_text("running, 40 %")).to_have_count(0)
        expect(page.locator("jobledger-progress[lost]")).to_be_visible()
        client.update_progress(job.id, 60, attempt=1)
        with GatewayProcess(server.target, arguments):
            expect(page.get_by_text("running, 60 %")).to_be_visible()
            expect(page.locator("jobledger-progress[lost]")).to_have_count(0)
            client.mark_completed(job.id, attempt=1)
            expect(status).to_have_text("completed")
        page.wait_for_timeout(1000)  # nothing is lost once the job has ended
        expect(page.locator("jobledger-progress[lost]")).to_have_count(0)


def test_the_component_does_not_say_that_it_is_connected_while_the_service_is_away(
    visit: Visit, server: ServerProcess, application: tuple[str, list[str]]
) -> None:
    origin, arguments = application
    with GatewayProcess(server.target, arguments) as gateway:
        page = visit("/", base=origin)
        page.get_by_role("button", name="Greet me").click()
        expect(page.get_by_text("queued")).to_be_visible()
        said = page.get_by_role("status")
        said.evaluate(
            """(said) => {
                window.heard = [];
                new MutationObserver(() => window.heard.push(said.textContent))
                    .observe(said, { childList: true, characterData: true, subtree: true });
            }"""
        )
        gateway.kill()
        with GatewayProcess(f"127.0.0.1:{free_port()}", arguments):
            page.wait_for_event("response", lambda answer: "/events" in answer.url)
        with GatewayProcess(server.target, arguments):
            expect(said).to_have_text("connected again")
            heard = page.evaluate("window.heard")
    assert heard == ["connection lost, trying again", "connected again"]


def test_the_example_shows_nobody_the_job_of_another_user(
    visit: Visit, client: Client, application: tuple[str, list[str]]
) -> None:
    page = visit(f"/?job={client.create_job('secret').id}", base=application[0])
    expect(page.get_by_text("You have no such job.")).to_be_visible()


def show(page: Page, job_id: str, token: str) -> None:
    """Show a job in a page of the gateway, and keep the component's events in `heard`."""
    page.add_script_tag(url="/static/jobledger-progress.js")
    page.evaluate(
        """([src, token]) => {
            const shown = document.createElement("jobledger-progress");
            window.heard = [];
            for (const name of ["progress", "end", "error"])
                shown.addEventListener(name, ({ detail }) =>
                    window.heard.push([name, detail.status, detail.progress]));
            shown.setAttribute("src", src);
            shown.setAttribute("token", token);
            document.querySelector("main").replaceChildren(shown);
        }""",
        [f"/v1/jobs/{job_id}/events", token],
    )


def test_the_component_tells_the_page_what_happens_under_a_strict_policy(
    visit: Visit, client: Client
) -> None:
    job = client.start_job(client.create_job("component").id, lease_duration=600)
    page = visit("/?job_types=component")
    show(page, job.id, client.create_watch_token(job.id).token)
    component = page.locator("jobledger-progress")
    expect(component.get_by_text("running, 0 %")).to_be_visible()
    client.update_progress(job.id, 70, attempt=1)
    expect(component.get_by_text("running, 70 %")).to_be_visible()
    client.mark_failed(job.id, "the disk is full", reason="NO_DISK", attempt=1)
    expect(component.get_by_role("status")).to_have_text("failed the disk is full")
    expect(component).to_have_attribute("state", "failed")
    assert page.evaluate("window.heard") == [
        ["progress", "JOB_STATUS_PROCESSING", None],
        ["progress", "JOB_STATUS_PROCESSING", 70],
        ["progress", "JOB_STATUS_FAILED", 70],
        ["end", "JOB_STATUS_FAILED", 70],
    ]


def test_the_component_gives_up_with_an_error_and_goes_on_with_another_token(
    visit: Visit, client: Client
) -> None:
    job, other = client.create_job("component"), client.create_job("component")
    page = visit("/?job_types=none")
    show(page, job.id, client.create_watch_token(other.id).token)
    component = page.locator("jobledger-progress")
    expect(component).to_have_attribute("lost", "")
    assert page.evaluate("window.heard") == [["error", 403, None]]
    token = client.create_watch_token(job.id).token
    component.evaluate("(shown, token) => shown.setAttribute('token', token)", token)
    expect(component.get_by_text("queued")).to_be_visible()
    client.cancel_job(job.id)
    expect(component).to_have_attribute("state", "cancelled")
    assert client.get_job(job.id).status is JobStatus.FAILED

    # Nothing follows the end, not even with another token.
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    component.evaluate("(shown) => shown.setAttribute('token', 'another')")
    page.evaluate("fetch('/healthz')")
    assert [url for url in requested if url.endswith("/events")] == []
