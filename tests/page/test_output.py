"""A job's output: <jobledger-output>, and the page that has one for each stream."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from jobledger import Client, Job
from tests.support.gateway_process import GatewayProcess
from tests.support.ports import free_port
from tests.support.server_process import ServerProcess

Visit = Callable[..., Page]


def append(client: Client, job: Job, text: str | bytes, **fields: Any) -> None:
    """Append to the output of a job, as its worker does."""
    data = text.encode() if isinstance(text, str) else text
    for at in range(0, len(data), 64 * 1024):
        client.append_output(job, job.attempt, data[at : at + 64 * 1024], **fields)


@pytest.fixture
def job(client: Client) -> Job:
    return client.start_job(client.create_job("output").id, lease_duration=600)


def embed(page: Page, job: Job, token: str, **attributes: str) -> Locator:
    """Show a job's output under the gateway's policy; keep the component's events in `heard`."""
    page.add_script_tag(url="/static/jobledger-output.js")
    page.evaluate(
        """(attributes) => {
            const shown = document.createElement("jobledger-output");
            window.heard = [];
            for (const name of ["output", "end", "error", "follow"])
                shown.addEventListener(name, ({ detail }) => window.heard.push([name, detail]));
            for (const [name, value] of Object.entries(attributes)) shown.setAttribute(name, value);
            document.body.replaceChildren(shown);
        }""",
        {"src": f"/v1/jobs/{job.id}/output", "token": token, **attributes},
    )
    return page.locator("jobledger-output")


def text_of(component: Locator) -> str:
    return component.locator("[part=output]").inner_text()


@pytest.fixture
def token(client: Client, job: Job) -> str:
    """A watch token that reads output."""
    return client.create_watch_token(job.id, output=True).token


def test_the_component_shows_output_live_to_its_end(
    visit: Visit, client: Client, job: Job, token: str
) -> None:
    append(client, job, "one\n<b>two</b> \u20ac".encode()[:-1])
    component = embed(visit("/healthz"), job, token)
    output = component.get_by_role("region", name="Output")
    expect(output).to_have_text("one\n<b>two</b> ")
    append(client, job, "\u20ac".encode()[-1:])  # the rest of a character
    expect(output).to_have_text("one\n<b>two</b> \u20ac")
    append(client, job, "\n10 %\r20 %")
    expect(output).to_have_text("one\n<b>two</b> \u20ac\n20 %")
    append(client, job, "\r\x1b[1;31m100")
    append(client, job, " %\x1b[0m\r\nend")
    expect(output).to_have_text("one\n<b>two</b> \u20ac\n100 %\nend")
    red = component.get_by_text("100 %", exact=True)
    expect(red).to_have_css("color", "rgb(255, 123, 114)")
    expect(red).to_have_css("font-weight", "700")
    client.mark_completed(job.id, attempt=1)
    component.page.wait_for_function("() => heard.some(([name]) => name === 'end')")


@pytest.mark.parametrize("attempts", ["keep", "clear"])
def test_the_component_separates_attempts_or_shows_the_newest_alone(
    visit: Visit, client: Client, job: Job, token: str, attempts: str
) -> None:
    append(client, job, "\x1b[31mbegun\n")
    component = embed(visit("/healthz"), job, token, attempts=attempts)
    output = component.locator("[part=output]")
    expect(output).to_have_text("begun")
    client.release_job(job.id, attempt=1)
    again = client.start_job(job.id, lease_duration=600)
    append(client, again, "again")
    expect(output).to_have_text(
        "attempt 2again" if attempts == "clear" else re.compile(r"begun\s*attempt 2again")
    )
    # Nothing of the first attempt's style is left.
    expect(component.get_by_text("again")).to_have_css("color", "rgb(230, 237, 243)")


def test_the_component_resumes_without_a_byte_lost_or_shown_twice(
    visit: Visit, own_server: ServerProcess
) -> None:
    listen = ["--listen", f"127.0.0.1:{free_port()}"]
    with (
        Client(own_server.target, user_id="ada") as client,
        GatewayProcess(own_server.target, listen) as gateway,
    ):
        job = client.start_job(client.create_job("output").id, lease_duration=600)
        page = visit("/healthz", base=gateway.url)
        component = embed(page, job, client.create_watch_token(job.id, output=True).token)
        append(client, job, "one ")
        output = component.locator("[part=output]")
        expect(output).to_have_text("one ")
        gateway.kill()
        expect(component).to_have_attribute("lost", "")
        own_server.kill()
        own_server.start()
        append(client, job, "two ")
        with GatewayProcess(own_server.target, listen):
            expect(output).to_have_text("one two ")
            expect(page.locator("jobledger-output[lost]")).to_have_count(0)
            append(client, job, "three")
            expect(output).to_have_text("one two three")


def test_the_component_keeps_no_more_than_its_limit(
    visit: Visit, client: Client, job: Job, token: str
) -> None:
    lines = [f"line {number}\n" for number in range(20_000)]
    append(client, job, "".join(lines[:10_000]))
    component = embed(visit("/healthz"), job, token, limit="60000")
    output = component.locator("[part=output]")
    expect(output).to_contain_text("line 9999")
    append(client, job, "".join(lines[10_000:]))
    expect(output).to_contain_text("line 19999")
    output.evaluate("(shown) => { shown.scrollTop = 0; }")
    expect(component.locator("[part=note]")).to_have_text("Earlier output is not shown.")
    expect(output).not_to_contain_text("line 19999")
    first = re.search(r"line (\d+)", text_of(component))
    assert first is not None
    assert 20_000 - 60_000 / 10 < int(first[1]) < 19_000


def test_the_component_says_why_it_shows_nothing(
    visit: Visit, client: Client, job: Job, token: str
) -> None:
    append(client, job, "secret")
    component = embed(visit("/healthz"), job, client.create_watch_token(job.id).token)
    expect(component).to_have_attribute("lost", "")
    ((name, problem),) = component.page.evaluate("heard")
    assert (name, problem["status"]) == ("error", 403)
    component.evaluate("(shown, token) => shown.setAttribute('token', token)", token)
    expect(component.locator("[part=output]")).to_have_text("secret")


def test_the_page_has_a_tab_for_each_stream_and_sees_new_ones(
    visit: Visit, client: Client, job: Job
) -> None:
    page = visit(f"/jobs/{job.id}?user_id=ada")
    expect(page.get_by_text("What happened")).to_be_visible()
    expect(page.get_by_role("tab")).to_have_count(0)
    append(client, job, "the default")
    expect(page.get_by_role("tab", name="output")).to_be_visible()
    expect(page.get_by_role("region", name="Output output")).to_have_text("the default")
    colours = (*range(30, 38), *range(40, 48), *range(90, 98), *range(100, 108), 1, 2, 7)
    append(client, job, "".join(f"\x1b[{code}m{code}\x1b[0m " for code in colours), stream="log")
    append(client, job, b"\x89PNG", stream="picture", content_type="image/png")
    log = page.get_by_role("tab", name="log")
    log.click()
    expect(log).to_have_attribute("aria-selected", "true")
    expect(page.get_by_role("region", name="Output log")).to_contain_text("30 31 32")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    log.press("ArrowRight")
    expect(page.get_by_role("tab", name="picture")).to_be_focused()
    expect(page.get_by_text("This stream is image/png.")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.path().read_bytes() == b"\x89PNG"


def test_the_page_follows_until_somebody_scrolls_up(visit: Visit, client: Client, job: Job) -> None:
    append(client, job, "".join(f"line {number}\n" for number in range(2000)))
    page = visit(f"/jobs/{job.id}?user_id=ada")
    output = page.get_by_role("region", name="Output output")
    expect(page.get_by_text("line 1999", exact=False)).to_be_in_viewport()
    append(client, job, "followed\n")
    expect(output.get_by_text("followed")).to_be_visible()
    at_end = "(shown) => shown.scrollHeight - shown.clientHeight - shown.scrollTop < 4"
    page.wait_for_function(at_end, arg=output.element_handle())
    output.hover()
    page.mouse.wheel(0, -400)
    to_end = page.get_by_role("button", name="To the end")
    expect(to_end).to_be_visible()
    top = output.evaluate("(shown) => shown.scrollTop")
    append(client, job, "not followed\n" * 50)
    page.wait_for_function(
        "(shown) => shown.scrollHeight - shown.scrollTop > 1500", arg=output.element_handle()
    )
    assert output.evaluate("(shown) => shown.scrollTop") == top
    to_end.click()
    page.wait_for_function(at_end, arg=output.element_handle())
    expect(to_end).to_be_hidden()


def test_a_search_shows_each_place_in_turn(visit: Visit, client: Client, job: Job) -> None:
    lines = [f"line {number}" for number in range(20_000)]
    for at in (100, 7_000, 19_000):
        lines[at] = "a \x1b[32mNee\x1b[0mdle here"
    append(client, job, "\n".join(lines))
    page = visit(f"/jobs/{job.id}?user_id=ada")
    expect(page.get_by_text("line 19999")).to_be_visible()
    field = page.get_by_role("searchbox", name="Search in the output")
    said = page.locator(".output-tools [role=status]")
    output = page.get_by_role("region", name="Output output")
    field.fill("needle")
    for key, expected, number in (
        ("Enter", "1 of 3", 101),
        ("Enter", "2 of 3", 7_001),
        ("Enter", "3 of 3", 19_001),
        ("Shift+Enter", "2 of 3", 7_001),
    ):
        field.press(key)
        expect(said).to_have_text(expected)
        expect(output.get_by_text(f"line {number}", exact=False).first).to_be_in_viewport()
    field.fill("nothing")
    field.press("Enter")
    expect(said).to_have_text("not found")


def test_fifty_megabytes_are_shown_without_a_stutter(visit: Visit, tmp_path: Path) -> None:
    stored = ["--job-output", "64MiB", "--owner-output-rate", "1GiB", "--output-rate", "1GiB"]
    line = "{number:08} \x1b[3{colour}mlevel\x1b[0m what a program says of itself\n"
    lines = [line.format(number=number, colour=number % 8) for number in range(970_000)]
    with (
        ServerProcess(tmp_path, arguments=stored) as server,
        GatewayProcess(server.target) as gateway,
        Client(server.target, user_id="ada") as client,
    ):
        job = client.start_job(client.create_job("output").id, lease_duration=600)
        append(client, job, "".join(lines))
        page = visit("/healthz", base=gateway.url)
        page.evaluate(
            """() => {
                window.frames = [];
                let last = performance.now();
                const draw = (now) => {
                    window.frames.push(now - last);
                    last = now;
                    requestAnimationFrame(draw);
                };
                requestAnimationFrame(draw);
            }"""
        )
        token = client.create_watch_token(job.id, output=True).token
        component = embed(page, job, token, limit=str(64 * 1024 * 1024))
        last = component.get_by_text(f"{len(lines) - 1:08}")
        expect(last).to_be_visible(timeout=90_000)
        frames = sorted(page.evaluate("() => window.frames"))
        assert len(frames) > 50
        # What takes a megabyte at a time has frames of a second. The machine is shared by others.
        assert frames[len(frames) // 2] < 100
        assert frames[-1] < 1000
        output = component.locator("[part=output]")
        nodes = "(shown) => shown.querySelectorAll('*').length"
        for part in (0.0, 0.5, 0.25, 1.0):
            output.evaluate(
                "(shown, part) => { shown.scrollTop = shown.scrollHeight * part; }", part
            )
            page.wait_for_function(
                """([shown, part, count]) => {
                    const [line] = /\\d{8}/.exec(shown.innerText) ?? [];
                    return Math.abs(Number(line) - part * count) < 0.02 * count;
                }""",
                arg=[output.element_handle(), part, len(lines)],
            )
            assert output.evaluate(nodes) < 2000
        found = component.evaluate("(shown) => shown.find('00123456')")
        assert found == {"index": 1, "total": 1}
        expect(component.get_by_text("00123456")).to_be_in_viewport()
