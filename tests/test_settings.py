"""Configurations: one declaration for constructors, files, JSON, help and options."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import click
import numpy as np
import pytest
from msgspec import Meta

from distributed_estimator.cli._options import options_of, take
from distributed_estimator.errors import InputError
from distributed_estimator.training.settings import Config, Count, Reader, about, from_dict


@dataclass(frozen=True)
class Wheel(Config):
    KIND: ClassVar[str] = "wheel"
    size: Count = 28


@dataclass(frozen=True)
class Track(Config):
    KIND: ClassVar[str] = "track"
    links: Count = 40


@dataclass(frozen=True)
class Vehicle(Config):
    """Something that moves.

    Attributes:
        name: A name.
        speed: Kilometres
            an hour.
        seats: Seats. None: none.

    Raises:
        drive: No field.
    """

    name: str
    speed: Annotated[float, Meta(gt=0, le=300)] = 50.0
    seats: Annotated[Count | None, about(option="--places")] = None
    drive: Annotated[Literal["front", "rear"], about("The driven axle.")] = "front"
    gears: Annotated[tuple[Annotated[float, Meta(gt=0)], ...], Meta(min_length=1)] = (3.5, 1.0)
    below: Wheel | Track = Wheel()
    extras: dict[str, Wheel] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.extras is None:
            object.__setattr__(self, "extras", {})
        super().__post_init__()
        if self.name == "tank" and not isinstance(self.below, Track):
            raise InputError("`below` is a wheel, and a tank has a track: give that")


DOCUMENT = {
    "name": "tank",
    "speed": 40,
    "gears": [2, 1],
    "below": {"kind": "track", "links": 90},
    "extras": {"front": {"size": 20}},
}


def test_a_configuration_goes_through_json() -> None:
    config = from_dict(Vehicle, DOCUMENT)
    assert config == Vehicle(
        "tank", 40.0, gears=(2.0, 1.0), below=Track(90), extras={"front": Wheel(20)}
    )
    assert from_dict(Vehicle, json.loads(json.dumps(config.as_dict()))) == config
    assert config.as_dict()["below"] == {"kind": "track", "links": 90}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"speed": 0}, "`speed` is 0: give a number above 0 and at most 300"),
        ({"speed": float("nan")}, "`speed` is nan: give a number above 0"),
        ({"speed": True}, "`speed` is True: give a number"),
        ({"speed": "5_0"}, "`speed` is '5_0': give .*, without quotes, in digits from 0 to 9"),
        ({"seats": 2.0}, "`seats` is 2.0: give a whole number of at least 1"),
        ({"drive": "all"}, "`drive` is 'all': give one of front, rear"),
        ({"gears": []}, "`gears` is .*: give at least one"),
        ({"gears": [1, -1]}, r"`gears\[1\]` is -1: give a number above 0"),
        ({"gears": 3}, "`gears` is 3: give a list, each a number above 0"),
    ],
)
def test_constructors_and_documents_refuse_the_same(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(from_dict(Vehicle, DOCUMENT), **change)
    with pytest.raises(InputError, match=message):
        from_dict(Vehicle, {**DOCUMENT, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sped": 3}, "`sped` is no known key: did you mean `speed`?"),
        ({"extras": {"front": {"sise": 1}}}, r"`extras.front.sise` is no known key: did you mean"),
        ({"below": {"size": 2}}, "`below` needs `kind`: give `wheel` or `track`"),
        (
            {"below": {"kind": "track", "size": 2}},
            "`below.size` belongs to `kind: wheel`",
        ),
        ({"below": {"kind": "wheel"}}, "`below` is a wheel, and a tank has a track"),
        ({"extras": None}, "`extras` is None: give a mapping"),
    ],
)
def test_documents_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        from_dict(Vehicle, {**DOCUMENT, **change})


def test_all_that_is_wrong_is_named_with_its_place() -> None:
    reader = Reader(null="null")
    reader.read(Vehicle, {"speed": None, "extras": {"a": {"size": 0}}, "x": 1})
    assert [place for place, _ in reader.problems] == [
        ("x",),
        (),
        ("speed",),
        ("extras", "a", "size"),
    ]
    assert reader.problems[2][1].startswith("`speed` is null: give a number")


def test_numbers_of_numpy_and_zeros_without_a_sign() -> None:
    assert Vehicle("bus", np.float64(3.0)).speed == 3.0
    assert str(from_dict(Wheel, {"size": 1}).size) == "1"
    with pytest.raises(InputError, match=r"`size` is .*: give a whole number"):
        Wheel(np.int64(3))  # type: ignore[arg-type]


def test_options_are_the_fields() -> None:
    @click.command()
    @options_of(Vehicle, without=("extras",), defaults={"name": "unknown"})
    def command(**options: Any) -> tuple[Vehicle, dict[str, Any]]:
        return take(Vehicle, options, below=Track()), options

    given = ["--name", "van", "--places", "3", "--gears", "2,1.5"]
    found, left = command.main(given, standalone_mode=False)
    assert found == Vehicle("van", seats=3, gears=(2.0, 1.5), below=Track())
    assert left == {}
    found, _ = command.main(["--name", "null"], standalone_mode=False)
    assert found.name == "null"
    shown = " ".join(command.get_help(click.Context(command)).split())
    for text in (
        "--places N Seats. [default: none]",
        "--speed X Kilometres an hour. [default: 50]",
        "--drive [front|rear] The driven axle. [default: front]",
        "--name TEXT A name. [default: unknown]",
    ):
        assert text in shown
    with pytest.raises(click.UsageError) as error:
        command.main(["--name", "van", "--speed", "-1"], standalone_mode=False)
    assert error.value.message == "`--speed` is -1: give a number above 0 and at most 300"
