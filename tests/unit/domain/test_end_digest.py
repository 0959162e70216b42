"""The fingerprint that distinguishes a repeated terminal report from another report."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from jobledger_server.domain.commands import ChangeStatus
from jobledger_server.domain.decisions import outcome_digest
from jobledger_server.domain.job import AssetLink, JobError, JobStatus, Payload
from tests.support.busy_thread import busy_thread
from tests.unit.domain.jobs import ERROR, JOB_ID, LINK, OTHER_LINK

FULL = ChangeStatus(
    job_id=JOB_ID,
    target=JobStatus.PARTIAL,
    progress=70,
    progress_message="shading",
    result=Payload(b"r"),
    error=ERROR,
    error_details=Payload(b"d"),
    assets=(LINK, OTHER_LINK),
)
BARE = ChangeStatus(job_id=JOB_ID, target=JobStatus.COMPLETED)

# Digests are kept in databases: a server that computes another one for the
# same content would refuse the retry of a report that an older server had
# accepted. These values may only change together with a migration.
GOLDEN = [
    (FULL, "bbf774c64adb1bb0b2a05e22441c6375"),
    (BARE, "8ff95f8f4adf9b256ffcdf27ada85081"),
]


@pytest.mark.parametrize(("command", "digest"), GOLDEN)
def test_the_digest_is_the_same_in_every_version(command: ChangeStatus, digest: str) -> None:
    assert outcome_digest(command).hex() == digest


def test_the_caller_and_its_fences_are_not_in_the_digest() -> None:
    said_otherwise = replace(FULL, worker_id="worker-9", attempt=3, expected_version=8)
    assert outcome_digest(said_otherwise) == outcome_digest(FULL)


@pytest.mark.parametrize(
    "other",
    [
        replace(FULL, target=JobStatus.FAILED),
        replace(FULL, progress=None),
        replace(FULL, progress=71),
        replace(FULL, progress_message=None),
        replace(FULL, progress_message=""),
        replace(FULL, result=None),
        replace(FULL, result=Payload(b"")),
        replace(FULL, error=None),
        replace(FULL, error=JobError(reason="", message="")),
        replace(FULL, error=replace(ERROR, reason="X")),
        replace(FULL, error=replace(ERROR, message="X")),
        replace(FULL, error_details=None),
        replace(FULL, error_details=Payload(b"")),
        replace(FULL, assets=()),
        replace(FULL, assets=(LINK,)),
        replace(FULL, assets=(OTHER_LINK, LINK)),
        replace(FULL, assets=(LINK, OTHER_LINK, OTHER_LINK)),
        replace(FULL, assets=(LINK, replace(OTHER_LINK, file_size=1))),
        replace(FULL, assets=(LINK, replace(OTHER_LINK, asset_type="text/html"))),
        replace(FULL, assets=(LINK, replace(OTHER_LINK, url="b.txt", storage_path=""))),
        replace(FULL, assets=(LINK, replace(OTHER_LINK, name="c.txt"))),
        replace(FULL, assets=(LINK, replace(OTHER_LINK, sha256="0" * 64))),
        replace(FULL, assets=(LINK, replace(OTHER_LINK, etag="2"))),
    ],
)
def test_every_field_of_the_outcome_is_in_the_digest(other: ChangeStatus) -> None:
    assert outcome_digest(other) != outcome_digest(FULL)


# Few values and short ones, so that neighbours collide where the encoding lets them.
words = st.sampled_from(["", "0", "1", "1:", "-1:", "1:1", "a"])
payloads = st.none() | words.map(lambda word: Payload(word.encode()))
errors = st.none() | st.builds(JobError, words, words)
links = st.builds(
    AssetLink, words, words, words, st.integers(0, 11), words, sha256=words, etag=words
)
ends = st.builds(
    ChangeStatus,
    job_id=st.just(JOB_ID),
    target=st.sampled_from([JobStatus.COMPLETED, JobStatus.PARTIAL, JobStatus.FAILED]),
    progress=st.none() | st.integers(0, 11),
    progress_message=st.none() | words,
    result=payloads,
    error=errors,
    error_details=payloads,
    assets=st.lists(links, max_size=2).map(tuple),
)


@given(ends, ends)
def test_digests_are_equal_exactly_if_the_contents_are(
    one: ChangeStatus, other: ChangeStatus
) -> None:
    assert (outcome_digest(one) == outcome_digest(other)) == (one == other)


def test_the_digest_of_a_large_report_waits_for_no_other_thread() -> None:
    large = replace(FULL, result=Payload(bytes(2**18)), assets=(LINK,) * 700)
    with busy_thread() as switches:
        outcome_digest(large)
    # A handful: it would be thousands if each of the 5,000 parts were digested by itself.
    assert switches.count < 100
