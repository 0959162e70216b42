"""What `hello_worker.py` and `hello_client.py` agree on."""

from dataclasses import dataclass

from jobledger import Task


@dataclass
class Person:
    """What a job takes."""

    name: str


@dataclass
class Answer:
    """What it gives."""

    greeting: str


greet = Task("greet", Person, result=Answer)
