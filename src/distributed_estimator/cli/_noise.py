"""What the noise of devices does to a query, for `dest plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from ..backends.noise import NoisePrice, Outlook
from ..errors import short
from ..estimator import DistributedEstimator
from ._devices import find_device_of
from ._forecast import Forecast
from ._output import print_table, share

_PIECES = 8
"""Fragments that are listed one by one."""


def noise_of(names: Sequence[str], forecast: Forecast) -> list[dict[str, Any]]:
    """What each device does with as many shots as the query takes, for a JSON document."""
    query = forecast.query
    pub = query.circuit, list(query.observables), query.sample()
    found = []
    with DistributedEstimator(forecast.plan, options=query.settings.options) as estimator:
        for name in names:
            found.append(_as_dict(name, estimator.noise(pub, find_device_of(name))))
    return found


def recommended(noise: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The device, way and mitigation of the least error."""
    best = min(noise, key=lambda each: each["recommended"]["error"])
    return {"device": best["device"], **best["recommended"]}


def recommendation(best: dict[str, Any]) -> str:
    """The same as text."""
    mitigated = ", ".join(best["mitigated"]) or "nothing"
    return f"{best['device']}, {best['way']}; mitigate {mitigated}; error about {best['error']:.2g}"


def _as_dict(name: str, price: NoisePrice) -> dict[str, Any]:
    return {
        "device": name,
        "shots": price.shots,
        "value": price.value,
        "whole": None if price.whole is None else asdict(price.whole),
        "cut": asdict(price.cut),
        "fragments": [asdict(each) for each in price.fragments],
        "outlooks": [_outlook(each) for each in price.outlooks],
        "shots_to_cut": price.shots_to_cut,
        "recommended": {name: _outlook(price.best)[name] for name in ("way", "mitigated", "error")},
    }


def _outlook(outlook: Outlook) -> dict[str, Any]:
    plan = outlook.mitigation
    return {
        "way": outlook.way,
        "mitigated": [n for n in ("readout", "zne") if plan is not None and getattr(plan, n)],
        **{name: getattr(outlook, name) for name in ("bias", "stderr", "error")},
    }


def print_noise(noise: dict[str, Any]) -> None:
    """Prints what a device does to the circuit and its fragments, and what follows."""
    pieces = [(f"fragment {place}", each) for place, each in enumerate(noise["fragments"])]
    print_table(
        ("", "qubits", "depth", "gates", "gates fail", "bits misread"),
        (
            (
                *(name, *(short(own[each]) for each in ("qubits", "depth", "gates"))),
                *(share(own[each]) for each in ("infidelity", "readout")),
            )
            for name, own in (("whole", noise["whole"]), ("cut", noise["cut"]), *pieces[:_PIECES])
            if own is not None
        ),
        f"Transpiled to {noise['device']}, gates on two qubits",
    )
    print_table(
        ("", "mitigated", "by noise", "by shots", "error"),
        (
            (
                *(own["way"], ", ".join(own["mitigated"]) or "nothing"),
                *(f"{own[each]:.2g}" for each in ("bias", "stderr", "error")),
            )
            for own in noise["outlooks"]
        ),
        f"Errors of a value of {noise['value']:.2g}, {short(noise['shots'])} shots each",
        left=2,
    )
    first = noise["shots_to_cut"]
    if first is not None and noise["recommended"]["way"] == "whole":
        click.echo(f"With about {first:.2g} shots or more, cutting has the least error")
