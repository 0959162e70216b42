"""What the web service and the worker agree on."""

from dataclasses import dataclass

from jobledger import Task, minutes


@dataclass
class Picture:
    """The parameters of a job."""

    width: int = 320
    height: int = 200


@dataclass
class Rendered:
    """The result of a job."""

    file: str


picture = Task(
    "picture",
    Picture,
    result=Rendered,
    stall_timeout=minutes(1),
    run_timeout=minutes(10),
)
