"""Frozen values at the price of others.

To set a field of a frozen dataclass, its `__init__` makes a call; to set one of any other
object the interpreter has an instruction. A job has 29 fields. So here objects are
filled while they are of a twin class, which has the same slots and is not frozen, and
then become what they are for good: Python lets the class of an object be changed to one
of the same slots.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar

Value = TypeVar("Value")


def quick(cls: type[Value]) -> type[Value]:
    """Give a frozen dataclass with slots a faster `__init__`, of the same signature.

    For classes without `__post_init__`, without a base that has fields, and without subclasses.
    """
    known: dict[str, Any] = {"become": object.__setattr__, "twin": _twin(cls), "cls": cls}
    by_place, by_name, filling = ["self"], ["*"], []
    for slot in _fields(cls):
        name = parameter = value = slot.name
        if slot.default_factory is not MISSING:
            known |= {f"new_{name}": slot.default_factory, f"no_{name}": object()}
            parameter = f"{name}=no_{name}"
            value = f"new_{name}() if {name} is no_{name} else {name}"
        elif slot.default is not MISSING:
            known[f"usual_{name}"] = slot.default
            parameter = f"{name}=usual_{name}"
        (by_name if slot.kw_only else by_place).append(parameter)
        filling.append(f"    self.{name} = {value}")
    parameters = by_place if by_name == ["*"] else by_place + by_name
    init = _function(
        [
            f"def __init__({', '.join(parameters)}):",
            "    become(self, '__class__', twin)",
            *filling,
            "    self.__class__ = cls",
        ],
        known,
    )
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    setattr(cls, "__init__", init)  # noqa: B010
    return cls


def copier(cls: type[Value]) -> Callable[[Value, Mapping[str, Any]], Value]:
    """Return `dataclasses.replace` for such a class, in a fraction of the time."""
    return _copying(
        cls,
        "changes",
        [
            *(f"    new.{slot.name} = value.{slot.name}" for slot in _fields(cls)),
            "    for name, value in changes.items():",
            "        setattr(new, name, value)",
        ],
    )


def changer(cls: type[Value], *names: str) -> Callable[..., Value]:
    """Return the same for changes of these fields always, given in this order: faster again.

    Raises AttributeError where the class has no such field.
    """
    known = {slot.name for slot in _fields(cls)}
    if unknown := [name for name in names if name not in known]:
        raise AttributeError(f"{cls.__name__} has no {', '.join(unknown)}")
    return _copying(
        cls,
        ", ".join(f"new_{name}" for name in names),
        [
            f"    new.{slot.name} = {'new_' if slot.name in names else 'value.'}{slot.name}"
            for slot in _fields(cls)
        ],
    )


def _copying(cls: type[Value], parameters: str, filling: list[str]) -> Callable[..., Value]:
    """Make a function that copies a value; `filling` are its lines about the fields."""
    copy: Callable[..., Value] = _function(
        [
            f"def copy(value, {parameters}):",
            "    new = twin()",
            *filling,
            "    new.__class__ = cls",
            "    return new",
        ],
        {"twin": _twin(cls), "cls": cls},
    )
    return copy


def _twin(cls: type[Any]) -> type[Any]:
    return type(cls.__name__, (), {"__slots__": cls.__slots__})


def _fields(cls: type[Any]) -> tuple[Field[Any], ...]:
    return fields(cls)


def _function(lines: list[str], known: dict[str, Any]) -> Any:
    """Make a function of its text, as `dataclasses` itself does: one line for each field."""
    made: dict[str, Any] = {}
    exec("\n".join(lines), known, made)  # noqa: S102
    (function,) = made.values()
    return function
