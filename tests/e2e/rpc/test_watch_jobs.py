"""WatchJobs' promises, each over a real channel: listing, order, resumption, filters, deletion."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from jobledger.v1 import job_service_pb2
from jobledger_server.app import App
from jobledger_server.rpc.jobs.feed_streams import selection_key
from jobledger_server.rpc.tokens import token
from jobledger_server.store import START_OF_ACTIVE
from jobledger_server.tuning import Tuning
from jobledger_server.watch.feed_watch import Selection
from tests.support.databases import both_databases
from tests.support.feed_events import Event, events
from tests.support.gated_store import Gate
from tests.support.in_turn import in_turn
from tests.support.rpc_caller import (
    BASIC,
    BIG_LABELS,
    COMPLETED,
    FULL,
    PARTIAL,
    PROCESSING,
    QUEUED,
    Caller,
    calling,
    decoded,
    refusal,
    watching,
)

Start = Callable[..., Any]


async def until_synced(stream: Any) -> list[Event]:
    """Read up to `synced`; return what came before it, without heartbeats, and it."""
    found: list[Event] = []
    while not found or not found[-1].synced:
        found += [event for event in events(await stream.read()) if not event.heartbeat]
    return found


async def news(stream: Any, count: int) -> list[Event]:
    """Read messages until there were this many changes."""
    found: list[Event] = []
    while len(found) < count:
        found += [event for event in events(await stream.read()) if event.job]
    return found


def versions(events: list[Event], job_id: str) -> list[int]:
    return [event.job.version for event in events if event.job and event.job.id == job_id]


def steps(events: list[Event], job_id: str) -> list[tuple[int, int]]:
    return [
        (step.from_status, step.to_status)
        for event in events
        if event.job and event.job.id == job_id
        for step in event.transitions
    ]


WHOLE = [(QUEUED, PROCESSING), (PROCESSING, COMPLETED)]


async def test_active_jobs_come_first_then_synced_then_every_change(call: Caller) -> None:
    ended = await call.ended()
    waiting, running = await call.job(), await call.running()
    async with watching(call.WatchJobs(user_id="ada")) as stream:
        *listed, synced = await until_synced(stream)
        assert [m.job for m in listed] == [waiting, running]
        assert not any(m.transitions or m.synced or m.deleted for m in listed)
        assert ended.id not in {m.job.id for m in listed}
        await call.UpdateProgress(job_id=running.id, attempt=1, progress={"progress": 30})
        last = (await call.MarkCompleted(job_id=running.id, attempt=1)).job
        new = await call.job()
        progress, end, creation = await news(stream, 3)
        assert (progress.job.progress, list(progress.transitions)) == (30, [])
        assert end.job == last
        assert steps([end], running.id) == WHOLE[1:]
        assert creation.job == new
        # Both listed jobs came in one message, whose token stands after the whole listing.
        assert [m.resume_token for m in listed] == ["", synced.resume_token]
        tokens = [m.resume_token for m in (synced, progress, end, creation)]
        assert len(set(tokens)) == len(tokens)


async def test_all_changes_of_a_commit_come_in_one_message(call: Caller) -> None:
    request = job_service_pb2.CreateJobRequest(user_id="ada", job_type="render")
    async with (
        watching(call.WatchJobs()) as of_all,
        watching(call.WatchJobs(user_id="ada", job_types=["render"])) as of_one,
    ):
        streams = of_all, of_one
        last = [(await until_synced(stream))[-1] for stream in streams]
        made = await call.BatchCreateJobs(user_id="ada", requests=[request] * 200)
        messages = [await stream.read() for stream in streams]
        for message in messages:
            assert [each.job for each in message.changes.changes] == list(made.jobs)
        after = await call.job()
        for stream in streams:
            assert [event.job for event in await news(stream, 1)] == [after]
    # The token of a message stands after its last change, and the one before it before its first.
    for message, missed in ((last[0], [*made.jobs, after]), (messages[0], [after])):
        async with watching(call.WatchJobs(resume_token=message.resume_token)) as stream:
            *found, _ = await until_synced(stream)
            assert [event.job for event in found] == missed


@pytest.mark.parametrize("read_from", ["list", "buffer", "table"])
@pytest.mark.parametrize("view", [BASIC, FULL])
async def test_a_message_has_a_mebibyte_at_most_and_a_token_to_resume_after_it(
    app: App, call: Caller, read_from: str, view: int
) -> None:
    """Also where one update of the server's own has more than fit a message."""
    async with watching(call.WatchJobs()) as stream:
        (synced,) = await until_synced(stream)
    request = job_service_pb2.CreateJobRequest(job_type="render")
    if view == FULL:
        request.parameters["blob"] = "x" * 30_000
    else:
        request.labels.update(BIG_LABELS)
    made: list[str] = []
    for user_id in ("ada", "bob", "a/b"):
        answer = await call.BatchCreateJobs(user_id=user_id, requests=[request] * 25)
        made += [job.id for job in answer.jobs]
    if read_from == "list":
        made = [*made[50:], *made[:50]]  # it is by owner
    if read_from == "table":
        app.hub.restart(app.hub.seq)
    begin = "" if read_from == "list" else synced.resume_token
    async with watching(call.WatchJobs(view=view, resume_token=begin)) as stream:
        messages = []
        while not messages or not messages[-1].synced:
            messages.append(await stream.read())
    *messages, last = messages
    assert 3 <= len(messages) <= 6
    assert all(400_000 < each.ByteSize() <= 1024 * 1024 for each in messages[:-1])
    assert [change.job.id for each in messages for change in each.changes.changes] == made
    assert last.resume_token == messages[-1].resume_token
    sent = 0
    for message in messages:
        assert {
            len(each.job.parameters["blob"]) for each in message.changes.changes if view == FULL
        } in (
            set(),
            {30_000},
        )
        sent += len(message.changes.changes)
        async with watching(call.WatchJobs(view=view, resume_token=message.resume_token)) as stream:
            assert [each.job.id for each in (await until_synced(stream))[:-1]] == made[sent:]


async def test_filters_apply_to_the_listing_and_to_the_changes(call: Caller) -> None:
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({}, {"ada-render", "bob-render", "ada-export", "ada-gold"}),
        ({"user_id": "ada"}, {"ada-render", "ada-export", "ada-gold"}),
        ({"user_id": "nobody"}, set()),
        ({"job_types": ["export"]}, {"ada-export"}),
        ({"job_types": ["export", "render"], "user_id": "bob"}, {"bob-render"}),
        ({"labels": {"tier": "gold"}}, {"ada-gold"}),
        ({"labels": {"tier": "gold", "no": "such"}}, set()),
        ({"labels": {"tier": ""}}, set()),
    ]

    async def create() -> None:
        gold = {"tier": "gold", "more": "x"}
        for user_id, job_type, labels, name in (
            ("ada", "render", {}, "ada-render"),
            ("bob", "render", {}, "bob-render"),
            ("ada", "export", {}, "ada-export"),
            ("ada", "other", gold, "ada-gold"),
        ):
            named = {**labels, "name": name}
            await call.job(user_id=user_id, job_type=job_type, labels=named)

    await create()
    async with AsyncExitStack() as open_streams:
        streams = []
        for filters, seen in cases:
            stream = await open_streams.enter_async_context(watching(call.WatchJobs(**filters)))
            *listed, synced = await until_synced(stream)
            assert sorted(m.job.labels["name"] for m in listed) == sorted(seen), filters
            streams.append((stream, synced.resume_token))
        await create()
        for (filters, seen), (stream, resume_token) in zip(cases, streams, strict=True):
            fresh = await news(stream, len(seen))
            assert {m.job.labels["name"] for m in fresh} == seen, filters
            # There was no other change: a watch resumed from `synced` gets the same.
            resumed = call.WatchJobs(**filters, resume_token=resume_token)
            async with watching(resumed) as again:
                *missed, _ = await until_synced(again)
                assert [m.job for m in missed] == [m.job for m in fresh], filters


async def test_a_watch_of_some_jobs_has_these_only(call: Caller) -> None:
    one, two, other = [await call.job(user_id=user_id) for user_id in ("ada", "bob", "ada")]
    ended = await call.ended()
    ids = [two.id, one.id, ended.id, "0" * 36]
    async with watching(call.WatchJobs(job_ids=ids, user_id="ada")) as stream:
        assert [event.job for event in await until_synced(stream) if event.job] == [one]
    async with watching(call.WatchJobs(job_ids=ids)) as stream:
        *listed, synced = await until_synced(stream)
        assert [event.job for event in listed] == [one, two]
        for job in (other, two, one):
            await call.TransitionJob(job_id=job.id, target_status=PROCESSING)
            await call.MarkCompleted(job_id=job.id, attempt=1)
        await call.DeleteJob(job_id=ended.id, user_id="ada")
        found = await news(stream, 5)
        assert [event.job.id for event in found] == [two.id, two.id, one.id, one.id, ended.id]
    # It resumes with the same ids in any order.
    again = call.WatchJobs(job_ids=[*reversed(ids), one.id], resume_token=synced.resume_token)
    async with watching(again) as stream:
        *missed, _ = await until_synced(stream)
        assert [event.job for event in missed] == [event.job for event in found]


async def test_payloads_come_with_the_list_the_creation_and_the_transitions(call: Caller) -> None:
    listed = await call.job(parameters={"n": 1})
    async with watching(call.WatchJobs(view=FULL)) as stream:
        first, synced = await until_synced(stream)
        assert first.job.parameters["n"] == 1
        job = await call.running(parameters={"n": 2})
        await call.UpdateProgress(job_id=job.id, attempt=1, progress={"progress": 50})
        error = {"message": "no", "details": {"n": 4}}
        await call.MarkPartial(
            job_id=job.id, attempt=1, finish={"result": {"n": 3}, "error": error}
        )
        created, started, progress, ended = await news(stream, 4)
        for change in (created, started):
            assert change.job.parameters["n"] == 2
            assert not change.job.HasField("result")
        assert not progress.job.HasField("parameters")
        assert (ended.job.parameters["n"], ended.job.result["n"]) == (2, 3)
        assert ended.job.error.details["n"] == 4
        await call.DeleteJob(job_id=job.id, user_id="ada")
        (deleted,) = await news(stream, 1)
        assert not deleted.job.HasField("parameters")
    # Of a job that was deleted meanwhile they are gone, and in the view BASIC there are none.
    for view in (FULL, BASIC):
        async with watching(call.WatchJobs(view=view, resume_token=synced.resume_token)) as stream:
            *missed, _ = await until_synced(stream)
        assert steps(missed, job.id) == [(QUEUED, PROCESSING), (PROCESSING, PARTIAL)]
        assert not any(event.job.HasField("parameters") for event in missed)
        assert not any(event.job.HasField("result") for event in missed)
    assert (await call.GetJob(job_id=listed.id, user_id="ada")).job == first.job


async def test_a_job_that_is_reported_after_the_list_was_begun_comes_with_its_payloads(
    call: Caller,
) -> None:
    job = await call.running(parameters={"n": 1})
    async with watching(call.WatchJobs(view=FULL)) as stream:
        *_, synced = await until_synced(stream)
    # As for a stream that lists while the job is reported: it is no longer in the list.
    await call.UpdateProgress(job_id=job.id, attempt=1, progress={"progress": 50})
    async with watching(call.WatchJobs(view=FULL, resume_token=synced.resume_token)) as stream:
        reported, _ = await until_synced(stream)
        assert (reported.job.progress, reported.job.parameters["n"]) == (50, 1)
        await call.UpdateProgress(job_id=job.id, attempt=1, progress={"progress": 60})
        (later,) = await news(stream, 1)
        assert not later.job.HasField("parameters")


@both_databases
async def test_resumable_after_any_message_without_loss_or_duplicates(
    call: Caller,
) -> None:
    waiting = await call.job()
    async with watching(call.WatchJobs()) as stream:
        messages = await until_synced(stream)
        job = await call.running()
        for progress in (10, 20, 30):
            await call.UpdateProgress(job_id=job.id, attempt=1, progress={"progress": progress})
        await call.MarkCompleted(job_id=job.id, attempt=1)
        await call.CancelJob(job_id=waiting.id, user_id="ada")
        gone = await call.ended()
        await call.DeleteJob(job_id=gone.id, user_id="ada")
        messages += await news(stream, 6 + 2 + 4)
    final = {m.job.id: m.job.version for m in messages if m.job}
    for index, message in enumerate(messages):
        if not message.resume_token:
            continue
        async with watching(call.WatchJobs(resume_token=message.resume_token)) as stream:
            *rest, _ = await until_synced(stream)
        before = messages[: index + 1]
        for job_id, last in final.items():
            told = versions(before, job_id) + versions(rest, job_id)
            assert told == sorted(set(told))
            assert told[-1] == last
            assert steps(before, job_id) + steps(rest, job_id) == steps(messages, job_id)
    assert steps(messages, job.id) == steps(messages, gone.id) == WHOLE


@pytest.mark.parametrize("tuning", [Tuning(feed_page=1)])
async def test_a_job_that_changes_during_the_listing_is_delivered_in_its_present_state(
    app: App, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = [await call.job() for _ in range(3)]
    gate = Gate()
    list_jobs = app.store.active_jobs

    async def gated(*args: Any, **options: Any) -> Any:
        if args[0] != START_OF_ACTIVE:  # the first page is let through
            await gate()
        return await list_jobs(*args, **options)

    monkeypatch.setattr(app.store, "active_jobs", gated)
    async with watching(call.WatchJobs()) as stream:
        (listed,) = await news(stream, 1)
        assert listed.job == first
        await gate.reached.wait()
        await call.TransitionJob(job_id=first.id, target_status=PROCESSING)
        await call.MarkCompleted(job_id=first.id, attempt=1)  # sent already, and terminal since
        await call.TransitionJob(job_id=second.id, target_status=PROCESSING)
        await call.CancelJob(job_id=third.id, user_id="ada")  # terminal before it was sent
        gate.open()
        messages = [listed, *await until_synced(stream)]
    assert versions(messages, first.id) == [1, 2, 3]
    assert steps(messages, first.id) == WHOLE
    assert versions(messages, second.id) == [2]
    assert messages[-1].synced
    # Cut in the middle of the listing, it goes on there.
    async with watching(call.WatchJobs(resume_token=listed.resume_token)) as stream:
        rest = await until_synced(stream)
    assert versions([listed, *rest], first.id) == [1, 2, 3] or versions(
        [listed, *rest], first.id
    ) == [1, 3]
    assert steps(rest, first.id) == WHOLE
    assert versions(rest, second.id) == [2]
    assert versions(rest, third.id)[-1] == 3


async def test_an_idle_feed_watch_sends_heartbeats_with_its_newest_token(
    start: Start,
) -> None:
    app = await start(heartbeat=0.05)
    async with calling(app.address) as call:
        async with watching(call.WatchJobs(user_id="ada")) as stream:
            (synced,) = await until_synced(stream)
            job = await call.ended(user_id="bob")  # the feed moves on, with nothing for this one
            while (message := await stream.read()).resume_token == synced.resume_token:
                pass
            assert message.heartbeat
            assert not message.changes.changes
        reads: list[int] = []
        changes_after = app.store.changes_after

        async def counted(seq: int, **options: Any) -> Any:
            reads.append(seq)
            return await changes_after(seq, **options)

        app.store.changes_after = counted
        async with watching(
            call.WatchJobs(user_id="ada", resume_token=message.resume_token)
        ) as stream:
            assert [m.synced for m in await until_synced(stream)] == [True]
        assert not reads
        assert job.status == COMPLETED


@in_turn("damaged", ["x", "é", "A" * 400, "AAAAAAAAAAAAAAAA", "MS8yLw==", "\u0000" * 3])
async def test_a_damaged_token_is_refused(call: Caller, damaged: str) -> None:
    refused = await refusal(call.WatchJobs(resume_token=damaged).read())
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_TOKEN")
    (violation,) = refused.details["BadRequest"].field_violations
    assert violation.field == "resume_token"


@in_turn(
    "content",
    [
        "",
        "{epoch}",
        "{epoch}/1",
        "{epoch}/x/",
        "{epoch}/-1/",
        "{epoch}/1/2/3",
        "{epoch}/1//1",
        "{epoch}/99/",
        "{epoch}/0/99",
        "{epoch}/999999999999999999999/",
        "{epoch}/٣/",
    ],
)
async def test_an_invented_token_is_refused(call: Caller, app: App, content: str) -> None:
    epoch = (await app.store.feed_head()).epoch
    made_up = token(selection_key(Selection()), content.format(epoch=epoch))
    refused = await refusal(call.WatchJobs(resume_token=made_up).read())
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_TOKEN",
    )


async def test_a_token_of_another_request_is_refused(call: Caller) -> None:
    async with watching(call.WatchJobs(user_id="ada")) as stream:
        (synced,) = await until_synced(stream)
    for filters in (
        {},
        {"user_id": "bob"},
        {"user_id": "ada", "job_types": ["t"]},
        {"user_id": "ada", "job_ids": ["j"]},
    ):
        stream = call.WatchJobs(**filters, resume_token=synced.resume_token)
        assert (await refusal(stream.read())).reason == "INVALID_TOKEN"


async def test_a_token_before_the_compacted_sequence_has_expired(call: Caller, app: App) -> None:
    async with watching(call.WatchJobs()) as stream:
        (synced,) = await until_synced(stream)
        job = await call.ended()
        await call.DeleteJob(job_id=job.id, user_id="ada")
        messages = await news(stream, 4)
    from jobledger_server.domain.job import Micros

    assert await app.store.compact_deletions(Micros(0), limit=10) == 1
    # This server can send what its change buffer still has.
    async with watching(call.WatchJobs(resume_token=synced.resume_token)) as stream:
        assert [m.deleted for m in await news(stream, 4)] == [False, False, False, True]
    app.hub.restart(app.hub.seq)
    refused = await refusal(call.WatchJobs(resume_token=synced.resume_token).read())
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.OUT_OF_RANGE,
        "RESUME_TOKEN_EXPIRED",
    )
    async with watching(call.WatchJobs(resume_token=messages[-1].resume_token)) as stream:
        await until_synced(stream)


async def test_a_stream_at_its_maximum_age_ends_with_the_token_to_resume_with(start: Start) -> None:
    app = await start(max_watch_age=0.2)
    async with calling(app.address) as call:
        job = await call.job()
        token = ""
        with pytest.raises(grpc.RpcError) as ended:
            async for message in call.WatchJobs():
                token = message.resume_token
        moved = decoded(ended.value)
        assert (moved.code, moved.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
        assert moved.metadata["resume_token"] == token
        assert moved.details["RetryInfo"].retry_delay.ToTimedelta().total_seconds() == 0
        with pytest.raises(grpc.RpcError) as ended:
            async for message in call.WatchJob(job_id=job.id, user_id="ada"):
                assert message.heartbeat or message.job == job
        moved = decoded(ended.value)
        assert moved.code is grpc.StatusCode.UNAVAILABLE
        assert moved.details["RetryInfo"].retry_delay.ToTimedelta().total_seconds() == 0


async def test_a_draining_server_sends_the_token_to_resume_with(app: App, call: Caller) -> None:
    async with watching(call.WatchJobs()) as stream:
        (synced,) = await until_synced(stream)
        app.hub.drain()
        with pytest.raises(grpc.RpcError) as ended:
            await stream.read()
    refused = decoded(ended.value)
    assert refused.code is grpc.StatusCode.UNAVAILABLE
    assert refused.metadata["resume_token"] == synced.resume_token
    assert refused.details["RetryInfo"].retry_delay == Duration()


async def test_a_watcher_that_disconnects_within_a_message_logs_no_error(
    app: App, call: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    stalled = call.WatchJobs(view=FULL)
    await until_synced(stalled)
    for _ in range(30):
        await call.job(parameters={"blob": "x" * 200_000})
    while app.hub.watches:
        stalled.cancel()
        await asyncio.sleep(0.01)
    assert (await call.ListJobs(user_id="ada")).jobs
    assert "internal_error" not in caplog.text
