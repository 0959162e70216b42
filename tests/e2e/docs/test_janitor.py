"""The example that removes the files of deleted jobs."""

import os
import runpy
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from jobledger import Asset, Client, JobStatus
from tests.support.forked import Forked
from tests.support.pages import ROOT
from tests.support.server_process import ServerProcess

JANITOR = ROOT / "examples" / "janitor.py"
Bucket, Folder, clean = (
    runpy.run_path(str(JANITOR))[name] for name in ("Bucket", "Folder", "clean")
)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture
def client(own_server: ServerProcess) -> Iterator[Client]:
    with Client(own_server.target, user_id="ada") as client:
        yield client


def ended_job(client: Client, paths: Iterable[str]) -> str:
    """Return a job that has ended, with an asset at each of these paths."""
    job = client.create_job("render")
    client.transition_job(job.id, JobStatus.PROCESSING)
    assets = [Asset("t", storage_path=path, name=f"{number}") for number, path in enumerate(paths)]
    client.mark_completed(job.id, attempt=1, assets=assets)
    return job.id


def made(folder: Path, path: str) -> str:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text("made")
    return path


def test_a_janitor_that_is_killed_again_and_again_removes_what_was_deleted_and_nothing_else(
    client: Client, own_server: ServerProcess, tmp_path: Path
) -> None:
    folder, place = tmp_path / "files", tmp_path / "place"
    outside = made(tmp_path, "outside.txt")
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    traps = [f"../{outside}", str(tmp_path / outside), f"link/{outside}", "a/..", ".", "/"]
    ended = [
        ended_job(client, [made(folder, f"{number}/{name}") for name in "ab"] + traps)
        for number in range(40)
    ]
    kept, deleted = ended[:10], ended[10:]
    files = {folder / f"{number}" / name for number in range(10, 40) for name in "ab"}

    def start() -> Forked:
        environment = {**os.environ, "JOBLEDGER_SERVER": own_server.target}
        text = f"import runpy; runpy.run_path({str(JANITOR)!r}, run_name='__main__')"
        with Path(os.devnull).open("rb") as read, Path(os.devnull).open("wb") as written:
            files = (read, written, written)
            return Forked("python", [text, str(folder), str(place)], files=files, env=environment)

    def left() -> int:
        return sum(file.exists() for file in files)

    janitor = start()
    until(place.exists)
    for job_id in deleted:
        client.delete_job(job_id)
        if left() in range(10, 50, 8):
            janitor.kill()
            janitor.wait()
            janitor = start()
    until(lambda: left() == 0)
    janitor.kill()
    janitor.wait()
    assert {path for path in folder.rglob("*") if path.is_file()} == {
        folder / f"{number}" / name for number in range(10) for name in "ab"
    }
    assert (tmp_path / outside).exists()
    assert [job.id for job in client.list_jobs(statuses=[JobStatus.COMPLETED])] == kept[::-1]


class Killed(Exception):
    """Ends the program."""


class LastStorage:
    """A storage in whose removal number `limit`, or in that of this path, the program is killed."""

    def __init__(self, limit: int, path: str = "") -> None:
        self.limit = limit
        self.path = path
        self.removed: list[str] = []

    def remove(self, path: str) -> None:
        self.removed.append(path)
        if len(self.removed) == self.limit or path == self.path:
            raise Killed


def test_wherever_it_is_killed_it_goes_on_with_what_is_left(client: Client, tmp_path: Path) -> None:
    place = tmp_path / "place"
    ended = [ended_job(client, [f"{number}/a", f"{number}/b"]) for number in range(3)]
    with client.watch_jobs(all_users=True) as events:
        place.write_text(next(event for event in events if event.synced).resume_token)
    for job_id in ended:
        client.delete_job(job_id)
    removed: set[str] = set()
    for limit in range(1, 7):
        storage = LastStorage(limit)
        with pytest.raises(Killed):
            clean(client, storage, place)
        removed.update(storage.removed[:-1])
    client.delete_job(ended_job(client, ["end"]))
    storage = LastStorage(0, "end")
    with pytest.raises(Killed):
        clean(client, storage, place)
    removed.update(storage.removed[:-1])
    assert removed == {f"{number}/{name}" for number in range(3) for name in "ab"}


def test_a_bucket_is_asked_to_delete_the_key() -> None:
    asked: list[dict[str, str]] = []

    class S3:
        def delete_object(self, **fields: str) -> None:
            asked.append(fields)

    Bucket(S3(), "renders").remove("1/a.png")
    assert asked == [{"Bucket": "renders", "Key": "1/a.png"}]


@pytest.mark.parametrize(
    "path", ["../x", "a/../../x", "a/../x", "/etc/passwd", "..", ".", "", "/", "out/x"]
)
def test_a_path_that_leads_out_of_the_folder_or_goes_back_is_refused(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path, "x")
    made(tmp_path, "root/x")
    made(tmp_path, "root/a/x")
    (tmp_path / "root/out").symlink_to(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    Folder(tmp_path / "root").remove(path)
    assert sorted(tmp_path.rglob("*")) == before
    assert path in capsys.readouterr().err or path in ("", ".")


def test_a_file_that_is_gone_and_a_folder_are_left_alone(tmp_path: Path) -> None:
    made(tmp_path, "a/x")
    for path in ("a", "a/y", "a/x/y", "b" * 300):
        Folder(tmp_path).remove(path)
    assert (tmp_path / "a/x").exists()


def test_of_a_link_the_link_is_removed(tmp_path: Path) -> None:
    made(tmp_path, "x")
    made(tmp_path, "root/y")
    (tmp_path / "root/link").symlink_to(tmp_path / "x")
    Folder(tmp_path / "root").remove("link")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["root", "x", "y"]
