"""Options about devices and their noise, for `dest plan` and `dest estimate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import click
from msgspec import Meta

from ..errors import InputError
from ..subexperiments import TWIRLED, Extrapolator, Mitigation, Zne
from ..training.settings import Config, about
from ._options import FieldType, options_of

Remedy = Literal["readout", "zne", "twirling"]


@dataclass(frozen=True)
class NoiseSettings(Config):
    """What is done about noise, as the command line writes it."""

    mitigate: Annotated[
        tuple[Remedy, ...],
        about(
            "What to do about the device's noise, such as readout,zne: readout errors calibrated "
            f"and taken out; values extrapolated to zero noise; gates twirled, {TWIRLED} copies. "
            "None: nothing."
        ),
    ] = ()
    noise_factors: Annotated[
        tuple[Annotated[int, Meta(ge=1)], ...],
        about("How many times over two-qubit gates run for zne. None: 1,3,5."),
    ] = ()
    extrapolator: Annotated[
        Extrapolator | None, about("What zne extrapolates with. None: linear.")
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {"noise_factors": self.noise_factors, "extrapolator": self.extrapolator}
        for name, value in given.items():
            if value and "zne" not in self.mitigate:
                raise InputError(f"`{name}` belongs to zne: add `--mitigate zne`, or leave it out")

    @property
    def mitigation(self) -> Mitigation | None:
        """The same for an estimator; None: nothing."""
        if not self.mitigate:
            return None
        default = Zne()
        zne = Zne(self.noise_factors or default.factors, self.extrapolator or default.extrapolator)
        return Mitigation(
            readout="readout" in self.mitigate,
            zne=zne if "zne" in self.mitigate else None,
            twirling=TWIRLED if "twirling" in self.mitigate else None,
        )


noise_options: Callable[..., Any] = options_of(
    NoiseSettings, types={"mitigate": FieldType(tuple[Remedy, ...])}
)


def device_option(help: str) -> Callable[..., Any]:
    """Adds devices by name to a verb."""
    return click.option("--device", multiple=True, metavar="NAME", help=help)
