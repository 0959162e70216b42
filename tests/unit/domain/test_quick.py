"""Frozen values that are made quickly are as frozen, and made as any dataclass is."""

import copy
import inspect
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace

import pytest

from jobledger_server.domain import commands, machine, model
from jobledger_server.domain.model import Job, changed, with_report
from jobledger_server.domain.quick import changer, copier, quick
from jobledger_server.watch.subscription import News


@dataclass(frozen=True, slots=True)
class Plain:
    name: str
    size: int = 3
    tags: list[str] = field(default_factory=list)
    later: str | None = field(default=None, kw_only=True)
    wanted: int = field(kw_only=True)


@quick
@dataclass(frozen=True, slots=True)
class Quick:
    name: str
    size: int = 3
    tags: list[str] = field(default_factory=list)
    later: str | None = field(default=None, kw_only=True)
    wanted: int = field(kw_only=True)


copy_of = copier(Quick)
resized = changer(Quick, "size", "later")

QUICK = [
    cls
    for module in (model, commands, machine)
    for cls in vars(module).values()
    if isinstance(cls, type) and hasattr(cls, "__dataclass_fields__")
]


def values(value: object) -> list[object]:
    return [getattr(value, slot.name) for slot in fields(value)]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("a",), {"wanted": 1}),
        (("a", 5), {"wanted": 1, "later": "x"}),
        ((), {"name": "a", "tags": ["t"], "wanted": 1}),
    ],
)
def test_it_takes_what_a_dataclass_takes(
    arguments: tuple[object, ...], named: dict[str, object]
) -> None:
    made = Quick(*arguments, **named)
    assert values(made) == values(Plain(*arguments, **named))
    assert type(made) is Quick
    assert repr(made) == repr(Plain(*arguments, **named)).replace("Plain", "Quick")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), {"wanted": 1}),
        (("a",), {}),
        (("a", 1, [], None, 1), {}),
        (("a",), {"wanted": 1, "b": 2}),
    ],
)
def test_it_refuses_what_a_dataclass_refuses(
    arguments: tuple[object, ...], named: dict[str, object]
) -> None:
    for cls in (Plain, Quick):
        with pytest.raises(TypeError):
            cls(*arguments, **named)


def test_what_is_made_anew_for_each_is_shared_by_none() -> None:
    one, other = Quick("a", wanted=1), Quick("a", wanted=1)
    assert one.tags is not other.tags
    assert one == other


def test_its_values_are_copied_and_kept_as_those_of_others() -> None:
    made = Quick("a", tags=["t"], wanted=1)
    assert pickle.loads(pickle.dumps(made)) == copy.deepcopy(made) == copy.copy(made) == made
    assert replace(made, size=9).size == 9
    assert replace(made, size=9) == copy_of(made, {"size": 9})
    assert replace(made, size=9, later="x") == resized(made, 9, "x")


@pytest.mark.parametrize(
    "value",
    [
        Quick("a", wanted=1),
        copy_of(Quick("a", wanted=1), {"size": 2}),
        resized(Quick("a", wanted=1), 2, None),
    ],
)
def test_nothing_of_it_can_be_changed(value: Quick) -> None:
    assert type(value) is Quick
    for name in ("name", "size", "other"):
        with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
            setattr(value, name, 1)
    with pytest.raises((FrozenInstanceError, AttributeError)):
        del value.name
    assert value.name == "a"


@pytest.mark.parametrize("cls", [*QUICK, News], ids=lambda cls: cls.__name__)
def test_each_value_of_the_domain_has_the_fields_that_it_names(cls: type) -> None:
    """Made by name, of a value of its own for each field."""
    named = {slot.name: object() for slot in fields(cls)}
    made = cls(**named)
    assert values(made) == list(named.values())
    parameters = inspect.signature(cls).parameters
    assert set(parameters) == set(named)
    for slot in fields(cls):
        by_name = parameters[slot.name].kind is inspect.Parameter.KEYWORD_ONLY
        assert by_name is bool(slot.kw_only)


def test_a_changed_job_keeps_every_other_field() -> None:
    named = {slot.name: object() for slot in fields(Job)}
    job = Job(**named)
    assert changed(job) == job
    for name in named:
        after = changed(job, **{name: "new"})
        assert after == replace(job, **{name: "new"})
        assert after != job
    with pytest.raises(AttributeError):
        changed(job, unknown=1)


def test_a_job_with_a_report_keeps_every_field_that_a_report_does_not_change() -> None:
    job = Job(**{slot.name: object() for slot in fields(Job)} | {"version": 7})
    report = {"progress": 5, "lease_duration": 60, "lease_expire_time": 61}
    after = with_report(job, **report, message="half", now=1)
    assert after == replace(job, **report, progress_message="half", update_time=1, version=8)


def test_a_change_of_a_field_that_there_is_not_is_refused_when_it_is_made() -> None:
    with pytest.raises(AttributeError, match="Quick has no colour"):
        changer(Quick, "size", "colour")
