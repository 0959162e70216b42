"""What both clients' groups are: a value that stands for a job wherever a call takes one."""

from jobledger.core.models import Job


class OpenGroup:
    """A group of jobs, in the block that fills it."""

    def __init__(self) -> None:
        self._job: Job | None = None

    @property
    def job(self) -> Job:
        """The group as the last call of the block returned it: as created, sealed or cancelled.

        Raises:
            RuntimeError: the block was not entered.
        """
        if self._job is None:
            raise RuntimeError("the group is created by `with`: enter its block first")
        return self._job

    @property
    def id(self) -> str:
        """The id of the group."""
        return self.job.id
