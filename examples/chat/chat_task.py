"""What the web service and the worker agree on."""

from dataclasses import dataclass

from jobledger import Task, minutes


@dataclass
class Prompt:
    """The parameters of a job. The answer is its output."""

    prompt: str


chat = Task("chat", Prompt, stall_timeout=minutes(1))
