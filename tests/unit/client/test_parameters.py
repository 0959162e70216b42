"""Parameters as a dataclass or a pydantic model."""

import enum
import functools
from dataclasses import dataclass, field
from typing import Any, Literal

import pydantic
import pytest

from jobledger.worker.parameters import InvalidParameters, converter
from jobledger.worker.signatures import with_parameters


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


@dataclass
class Layer:
    name: str
    below: "Layer | None" = None


@dataclass
class Everything:
    text: str = ""
    count: int = 0
    share: float = 0.0
    flag: bool = False
    anything: Any = None
    size: Size = Size.SMALL
    mode: Literal["fast", 2] = "fast"
    maybe: int | None = None
    either: int | str = 0
    items: list[int] = field(default_factory=list)
    pairs: dict[str, float] = field(default_factory=dict)
    several: tuple[str, ...] = ()
    layer: Layer | None = None
    layers: list[Layer] = field(default_factory=list)
    made: int = field(default=7, init=False)


def convert(**parameters):
    return converter(Everything)(parameters, "parameters")


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"text": "a"}, "a"),
        ({"count": 3}, 3),
        ({"share": 3}, 3.0),
        ({"share": 0.5}, 0.5),
        ({"flag": True}, True),
        ({"anything": {"a": [1]}}, {"a": [1]}),
        ({"size": "large"}, Size.LARGE),
        ({"mode": 2}, 2),
        ({"maybe": None}, None),
        ({"maybe": 3}, 3),
        ({"either": "a"}, "a"),
        ({"items": [1, 2]}, [1, 2]),
        ({"pairs": {"a": 1}}, {"a": 1.0}),
        ({"several": ["a", "b"]}, ("a", "b")),
        ({"layer": {"name": "a", "below": {"name": "b"}}}, Layer("a", Layer("b"))),
        ({"layers": [{"name": "a"}]}, [Layer("a")]),
    ],
)
def test_a_value_is_converted_to_the_type_of_its_field(given, value):
    ((name, _),) = given.items()
    found = getattr(convert(**given), name)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text": 7}, "parameters.text: 7 is not str"),
        ({"text": None}, "parameters.text: null is not str"),
        ({"count": 1.5}, "parameters.count: 1.5 is not int"),
        ({"count": True}, "parameters.count: True is not int"),
        ({"count": "7"}, "parameters.count: '7' is not int"),
        ({"share": "a"}, "parameters.share: 'a' is not float"),
        ({"flag": 1}, "parameters.flag: 1 is not bool"),
        ({"size": "huge"}, "parameters.size: 'huge' is none of 'small', 'large'"),
        ({"size": []}, "parameters.size: [] is none of 'small', 'large'"),
        ({"mode": "slow"}, "parameters.mode: 'slow' is none of 'fast', 2"),
        ({"either": None}, "parameters.either: null is not int | str"),
        ({"items": "abc"}, "parameters.items: 'abc' is not a list"),
        ({"items": [1, "a"]}, "parameters.items[1]: 'a' is not int"),
        ({"pairs": {"a": "x"}}, "parameters.pairs.a: 'x' is not float"),
        ({"pairs": []}, "parameters.pairs: [] is not an object"),
        ({"layer": {"name": 7}}, "parameters.layer.name: 7 is not str"),
        ({"layer": {"name": "a", "below": {}}}, "parameters.layer.below.name: is missing"),
        ({"layers": [{}]}, "parameters.layers[0].name: is missing"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_the_name_of_its_field(given, message):
    with pytest.raises(InvalidParameters) as caught:
        convert(**given)
    assert str(caught.value) == message


def test_unknown_parameters_are_ignored_so_that_owners_can_be_newer_than_workers():
    assert convert(newer=True) == Everything()


def test_a_value_that_the_dataclass_refuses_is_refused():
    @dataclass
    class Positive:
        number: int

        def __post_init__(self):
            if self.number < 0:
                raise ValueError("number: is less than 0")

    with pytest.raises(InvalidParameters, match=r"^parameters: number: is less than 0$"):
        converter(Positive)({"number": -1}, "parameters")


@dataclass
class Bytes:
    data: bytes


@dataclass
class Ints:
    pairs: dict[int, str]


@pytest.mark.parametrize("kind", [Bytes, Ints, set[int], complex])
def test_a_type_that_no_json_value_fits_is_refused_when_the_handler_is_registered(kind):
    with pytest.raises(TypeError, match="is not a type that JSON can be converted to"):
        converter(kind)


class Model(pydantic.BaseModel):
    scene: str
    layers: list[Layer] = []
    frames: int = pydantic.Field(default=1, ge=1)


def test_a_pydantic_model_is_validated_by_pydantic():
    model = converter(Model)({"scene": "castle", "layers": [{"name": "a"}]}, "parameters")
    assert model == Model(scene="castle", layers=[Layer("a")])
    with pytest.raises(InvalidParameters) as caught:
        converter(Model)({"frames": 0}, "parameters")
    assert str(caught.value) == (
        "parameters.scene: Field required; "
        "parameters.frames: Input should be greater than or equal to 1"
    )


# --- which functions have typed parameters --------------------------------------------------------


class Job:
    parameters = {"name": "a"}  # noqa: RUF012


def annotated(job, params: Layer):
    return params


def by_name(job, params: "Layer"):
    return params


def with_default(job, params: Layer = Layer("none")):  # noqa: B008
    return params


class Handlers:
    def method(self, job, params: Layer):
        return params

    def __call__(self, job, params: Layer):
        return params


class ByName:
    def method(self, job, params: "Layer"):
        return params

    def __call__(self, job, params: "Layer"):
        return params


def with_option(option, job, params: "Layer"):
    return params


@pytest.mark.parametrize(
    "function",
    [
        annotated,
        by_name,
        with_default,
        Handlers().method,
        Handlers(),
        ByName().method,
        ByName(),
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


def test_a_type_that_cannot_be_found_is_refused():
    def other(job, params: "Nowhere"): ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(TypeError, match=r"'params': name 'Nowhere' is not defined"):
        with_parameters(other)


def test_more_than_two_parameters_are_refused():
    with pytest.raises(TypeError, match="more than a job and its parameters"):
        with_parameters(lambda job, params, more: None)
