"""Assets: their names are unique in a job, whoever links them again, and they are bounded."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from jobledger_server.domain.assets import Linked, link
from jobledger_server.domain.commands import ChangeStatus, LinkAsset
from jobledger_server.domain.decisions import decide
from jobledger_server.domain.errors import AssetNameTaken, LimitExceeded
from jobledger_server.domain.job import Asset, AssetLink, Job, JobStatus
from jobledger_server.domain.limits import MAX_ASSET_BYTES, MAX_ASSETS
from tests.unit.domain.jobs import (
    ERROR,
    HELD,
    JOB_ID,
    LINK,
    NOW,
    OTHER_LINK,
    ids,
    job_in,
)

CHANGED = replace(LINK, file_size=8)
ELSEWHERE = replace(LINK, url="https://files.example/2/a.png")


def linked(job: Job, *links: AssetLink, stored: Sequence[Asset] = ()) -> Linked:
    named = {asset.link.name: asset for asset in stored}
    return link(job, links, named, now=NOW, new_id=ids())


def test_the_same_link_again_links_nothing() -> None:
    first = linked(job_in(HELD), LINK, OTHER_LINK)
    again = linked(first.job, LINK, OTHER_LINK, stored=first.added)
    assert again == Linked(first.job, first.found, (), ())
    later = replace(first.job, attempt=2)
    assert linked(later, OTHER_LINK, LINK, LINK, stored=first.added).added == ()


@pytest.mark.parametrize(
    "other", [CHANGED, ELSEWHERE, *(replace(LINK, **{n: ""}) for n in ("sha256", "etag"))]
)
def test_another_asset_of_a_name_is_refused_within_an_attempt(other: AssetLink) -> None:
    first = linked(job_in(HELD), LINK)
    with pytest.raises(AssetNameTaken) as refusal:
        linked(first.job, OTHER_LINK, other, stored=first.added)
    assert repr(refusal.value) == repr(AssetNameTaken(JOB_ID, "a.png", first.added[0].id))
    with pytest.raises(AssetNameTaken):
        linked(job_in(HELD), LINK, other)


def test_a_later_attempt_that_wrote_to_the_same_place_updates_the_asset() -> None:
    first = linked(job_in(HELD), LINK, OTHER_LINK)
    (old, _) = first.added
    later = linked(replace(first.job, attempt=2), CHANGED, stored=first.added)
    assert later.added == ()
    assert later.updated == (replace(old, link=CHANGED, attempt=2),)
    assert later.found["a.png"] == later.updated[0]
    assert (later.job.asset_count, later.job.asset_bytes) == (2, first.job.asset_bytes)
    with pytest.raises(AssetNameTaken):
        linked(later.job, LINK, stored=later.updated)


def test_a_later_attempt_that_wrote_to_another_place_leaves_the_old_asset_without_a_name() -> None:
    first = linked(job_in(HELD), LINK)
    (old,) = first.added
    later = linked(replace(first.job, attempt=2), ELSEWHERE, stored=first.added)
    assert later.updated == (replace(old, link=replace(LINK, name="")),)
    (new,) = later.added
    assert (new.link, new.attempt) == (ELSEWHERE, 2)
    assert later.found["a.png"] == new
    assert later.job.asset_count == 2
    assert later.job.asset_bytes == LINK.text_bytes - 5 + ELSEWHERE.text_bytes


def test_the_bytes_of_an_asset_are_those_of_its_texts_in_a_message() -> None:
    each = AssetLink("t", "u", "ü", 2**60, "\N{CLAPPER BOARD}", "f" * 64, "e")
    assert each.text_bytes == 1 + 1 + 2 + 4 + 64 + 1


def many(count: int, start: int = 0, **fields: str) -> list[AssetLink]:
    return [
        replace(OTHER_LINK, name=f"{number:04}", **fields) for number in range(start, start + count)
    ]


def refused_limit(job: Job, *links: AssetLink) -> tuple[str, float, str]:
    with pytest.raises(LimitExceeded) as refusal:
        linked(job, *links)
    return refusal.value.limit, refusal.value.value, refusal.value.scope


def test_a_job_has_a_thousand_assets_at_most_in_all_its_requests_together() -> None:
    full = linked(job_in(HELD), *many(400)).job
    full = linked(full, *many(600, 400)).job
    assert full.asset_count == MAX_ASSETS == 1000
    assert refused_limit(full, LINK) == ("assets_per_job", 1000, "request")


def test_the_texts_of_a_job_s_assets_have_a_mebibyte_at_most() -> None:
    each = replace(OTHER_LINK, name="0000").text_bytes - len(OTHER_LINK.storage_path)
    room = MAX_ASSET_BYTES // 800 - each
    full = linked(job_in(HELD), *many(800, storage_path="x" * room)).job
    assert MAX_ASSET_BYTES - 800 < full.asset_bytes <= MAX_ASSET_BYTES
    refused = refused_limit(full, *many(1, 800, storage_path="x" * 800))
    assert refused == ("asset_bytes_per_job", MAX_ASSET_BYTES, "request")


@pytest.mark.parametrize("retryable", [False, True])
def test_the_assets_of_an_outcome_that_were_linked_before_are_not_linked_again(
    retryable: bool,  # noqa: FBT001
) -> None:
    first = linked(replace(job_in(HELD), max_attempts=3), LINK)
    command = ChangeStatus(
        job_id=JOB_ID,
        target=JobStatus.FAILED,
        attempt=1,
        error=ERROR,
        retryable=retryable,
        assets=(LINK, OTHER_LINK),
    )
    decision = decide(first.job, command, now=NOW, new_id=ids(), named=first.found)
    assert [asset.link for asset in decision.assets] == [OTHER_LINK]
    assert decision.job.asset_count == 2


def test_an_asset_is_answered_again_without_a_request_id_also_when_the_job_has_ended() -> None:
    first = linked(job_in(HELD), LINK)
    done = replace(first.job, status=JobStatus.COMPLETED, lease_expire_time=None)
    for job in (first.job, done):
        command = LinkAsset(job_id=JOB_ID, link=LINK, attempt=1, request_id="another")
        decision = decide(job, command, now=NOW, new_id=ids(), named=first.found)
        assert (decision.changed, decision.asset, decision.job) == (False, first.added[0], job)
