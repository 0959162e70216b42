"""Parameters as a dataclass or a pydantic model."""

import asyncio
import enum
import functools
from dataclasses import dataclass, field
from datetime import date

import pydantic
import pytest

from jobledger.worker.handlers.parameters import InvalidParameters, converter
from jobledger.worker.handlers.signatures import with_parameters
from tests.unit.client import late_annotations


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


@dataclass
class Layer:
    name: str
    below: "Layer | None" = None


class Model(pydantic.BaseModel):
    scene: str
    layers: list[Layer] = []
    frames: int = pydantic.Field(default=1, ge=1)


@dataclass
class Everything:
    share: float = 0.0
    size: Size = Size.SMALL
    pairs: dict[int, float] = field(default_factory=dict)
    day: date | None = None
    number: complex = 0j
    model: Model | None = None
    layers: list[Layer] = field(default_factory=list)


def convert(**parameters):
    return converter(Everything)(parameters)


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"share": 3}, 3.0),
        ({"size": "large"}, Size.LARGE),
        ({"pairs": {"7": 1}}, {7: 1.0}),
        ({"day": "2026-11-28"}, date(2026, 11, 28)),
        ({"layers": [{"name": "a", "below": {"name": "b"}}]}, [Layer("a", Layer("b"))]),
        ({"model": {"scene": "castle"}}, Model(scene="castle")),
    ],
)
def test_a_value_is_converted_to_the_type_of_its_field(given, value):
    ((name, _),) = given.items()
    found = getattr(convert(**given), name)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layers": [{}]}, "Object missing required field `name` - at `$.layers[0]`"),
        ({"model": {}}, "scene: Field required - at `$.model`"),
        ({"number": 1}, "complex is not a type that JSON can be converted to - at `$.number`"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_the_name_of_its_field(given, message):
    with pytest.raises(InvalidParameters) as caught:
        convert(**given)
    assert str(caught.value) == f"parameters: {message}"


def test_unknown_parameters_are_ignored_so_that_owners_can_be_newer_than_workers():
    assert convert(newer=True) == Everything()


def test_a_value_that_the_dataclass_refuses_is_refused():
    @dataclass
    class Positive:
        number: int

        def __post_init__(self):
            if self.number < 0:
                raise ValueError("number: is less than 0")

    with pytest.raises(InvalidParameters, match=r"^parameters: number: is less than 0"):
        converter(Positive)({"number": -1})


@dataclass
class Ambiguous:
    either: Layer | Size | dict[str, int]


def test_a_type_that_msgspec_cannot_convert_to_is_refused_when_the_handler_is_registered():
    with pytest.raises(TypeError, match="more than one dict-like type"):
        converter(Ambiguous)


def test_a_pydantic_model_is_validated_by_pydantic():
    model = converter(Model)({"scene": "castle", "layers": [{"name": "a"}]})
    assert model == Model(scene="castle", layers=[Layer("a")])
    with pytest.raises(InvalidParameters) as caught:
        converter(Model)({"frames": 0})
    assert str(caught.value) == (
        "parameters: scene: Field required; frames: Input should be greater than or equal to 1"
    )


# --- which functions have typed parameters --------------------------------------------------------


class Job:
    parameters = {"name": "a"}  # noqa: RUF012


def by_name(job, params: "Layer"):
    return params


def with_default(job, params: Layer = Layer("none")):  # noqa: B008
    return params


class Handlers:
    def method(self, job, params: "Layer"):
        return params

    def __call__(self, job, params: "Layer"):
        return params


def with_option(option, job, params: "Layer"):
    return params


@pytest.mark.parametrize(
    "function",
    [
        by_name,
        with_default,
        Handlers().method,
        Handlers(),
        functools.partial(with_option, "option"),
    ],
)
def test_a_second_parameter_of_a_handler_receives_the_parameters(function):
    assert with_parameters(function)(Job()) == Layer("a")


def test_a_second_parameter_with_a_default_and_no_such_type_is_not_touched():
    def other(job, words="none"):
        return words

    assert with_parameters(other)(Job()) == "none"


@pytest.mark.parametrize("annotation", [dict, int, None])
def test_a_second_parameter_of_another_type_is_refused(annotation):
    def other(job, params): ...

    if annotation is not None:
        other.__annotations__["params"] = annotation
    with pytest.raises(TypeError, match=r"'params' is not a dataclass or pydantic model"):
        with_parameters(other)


def test_the_type_of_the_job_may_be_imported_for_type_checkers_alone():
    call = with_parameters(late_annotations.render)
    assert asyncio.run(call(Job())) == {"name": "a"}


class Bare:
    parameters = {}  # noqa: RUF012


def keyword_only(job, *, params: Layer):
    return params


def optional(job, params: Layer | None):
    return params


def optional_by_keyword(job, *, params: Layer | None = None, more=1):
    return params


def after_others(
    job,
    retries: int = 3,
    *,
    log: "Unknown" = None,  # type: ignore[name-defined]  # noqa: F821
    params: Layer | None = None,
):
    return params


@pytest.mark.parametrize("function", [keyword_only, optional, optional_by_keyword, after_others])
def test_the_parameters_may_be_keyword_only_and_optional(function):
    assert with_parameters(function)(Job()) == Layer("a")


@pytest.mark.parametrize(
    ("function", "value"),
    [(optional, None), (optional_by_keyword, None), (with_default, Layer("none"))],
)
def test_a_job_without_parameters_gives_the_default_or_none(function, value):
    assert with_parameters(function)(Bare()) == value


def test_a_job_without_parameters_does_not_fit_a_type_that_needs_some():
    with pytest.raises(InvalidParameters, match="missing required field `name`"):
        with_parameters(keyword_only)(Bare())


@pytest.mark.parametrize("function", [late_annotations.maybe, late_annotations.by_keyword])
def test_late_annotations_may_be_optional_and_keyword_only(function):
    call = with_parameters(function)
    assert asyncio.run(call(Job())) == {"name": "a"}
    assert asyncio.run(call(Bare())) == {"name": None}


@pytest.mark.parametrize("function", [late_annotations.charge, late_annotations.convert])
def test_a_type_that_is_imported_for_type_checkers_alone_is_refused_with_what_to_do(function):
    with pytest.raises(TypeError, match=r"'Decimal' is not defined; .* not under TYPE_CHECKING"):
        with_parameters(function)


def other_type(job, *, size: int): ...
def several(job, params: Layer, *, size): ...
def unknown_type(job, params: "Nowhere"): ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (other_type, "'size' is not a dataclass or pydantic model"),
        (several, "more than a job and its parameters"),
        (lambda job, params, more: None, "more than a job and its parameters"),
        (unknown_type, "'params': name 'Nowhere' is not defined"),
    ],
)
def test_parameters_that_cannot_be_given_are_refused(function, words):
    with pytest.raises(TypeError, match=words):
        with_parameters(function)
