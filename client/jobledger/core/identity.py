"""Who a client calls as: the owner of jobs, and a worker."""

import os
import socket
import uuid


class Identity:
    """The owner and the worker of one client.

    Args:
        user_id: the owner for calls that name none.
    """

    def __init__(self, user_id: str | None) -> None:
        self._user_id = user_id
        self._host = "".join(filter(str.isprintable, socket.gethostname()))[:80]
        self._random = uuid.uuid4().hex[:8]

    @property
    def worker_id(self) -> str:
        """The same for all calls of one client, so that the service can identify a repeated start.

        In a forked process the client is another worker.
        """
        return f"{self._host}-{os.getpid()}-{self._random}"

    def owner(self, user_id: str | None) -> str:
        """Return the owner for a call that was given this one, or none."""
        owner = self._user_id if user_id is None else user_id
        if owner is None:
            raise ValueError("user_id: give it to the call or to the client")
        return owner

    def owner_or_all(self, user_id: str | None, *, all_users: bool) -> str:
        """Return the owner for a call that may be about all users' jobs; empty means all."""
        if all_users and user_id is not None:
            raise ValueError("user_id: does not go with all_users")
        owner = "" if all_users else self.owner(user_id)
        if not owner and not all_users:
            # In the request this would mean all users, which must not be requested by mistake.
            raise ValueError("user_id: is empty; use all_users for everybody's jobs")
        return owner
