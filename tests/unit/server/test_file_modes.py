"""Which files the server warns of."""

import os
import stat

import pytest

from jobledger_server.runtime.files import is_open_to_others

ROOT, SERVER, SOMEBODY = 0, 10001, 1000


@pytest.mark.parametrize(
    ("owner", "mode", "user", "is_open"),
    [
        (SERVER, 0o600, SERVER, False),
        (SERVER, 0o640, SERVER, True),
        (SERVER, 0o604, SERVER, True),
        # As Kubernetes mounts a Secret: the server reads it as a member of its group.
        (ROOT, 0o440, SERVER, False),
        (ROOT, 0o640, SERVER, False),
        (ROOT, 0o460, SERVER, True),
        (ROOT, 0o444, SERVER, True),
        (ROOT, 0o440, ROOT, True),
        (SOMEBODY, 0o440, SERVER, True),
    ],
)
def test_only_root_may_give_a_file_to_the_servers_group(
    owner: int, mode: int, user: int, *, is_open: bool
) -> None:
    found = os.stat_result((stat.S_IFREG | mode, 0, 0, 1, owner, SERVER, 0, 0, 0, 0))
    assert is_open_to_others(found, user) is is_open
