"""Removes the files of deleted jobs: `janitor.py FOLDER TOKEN_FILE`, beside a running server.

It may be killed at any moment: it stores its place in the feed after it has removed the files.
"""

import os
import sys
from pathlib import Path
from typing import Any, Protocol

from jobledger import Client


class Storage(Protocol):
    """Where the files are. To remove one that is gone does nothing."""

    def remove(self, path: str) -> None: ...


class Folder:
    """A folder, and nothing outside of it."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def remove(self, path: str) -> None:
        folder, name = os.path.split(self.root / path)
        file = Path(os.path.realpath(folder), name)  # of a link, the link itself
        if ".." in Path(path).parts or not file.is_relative_to(self.root):
            print(f"not in {self.root}: {path!r}", file=sys.stderr)
        elif os.path.lexists(file) and not os.path.isdir(file):  # noqa: PTH112
            file.unlink(missing_ok=True)


class Bucket:
    """A bucket: `Bucket(boto3.client("s3"), "renders")`."""

    def __init__(self, s3: Any, name: str) -> None:
        self.s3, self.name = s3, name

    def remove(self, path: str) -> None:
        self.s3.delete_object(Bucket=self.name, Key=path)


def clean(client: Client, storage: Storage, token_file: Path) -> None:
    token = token_file.read_text() if token_file.exists() else ""
    with client.watch_jobs(all_users=True, resume_token=token, heartbeats=60) as events:
        for event in events:
            for asset in filter(lambda asset: asset.storage_path, event.deleted_assets):
                storage.remove(asset.storage_path)
            if event.resume_token not in ("", token):
                token = event.resume_token
                new = token_file.with_suffix(".new")
                new.write_text(token)
                new.replace(token_file)


if __name__ == "__main__":
    with Client(os.environ.get("JOBLEDGER_SERVER", "127.0.0.1:50051")) as client:
        clean(client, Folder(Path(sys.argv[1])), Path(sys.argv[2]))
