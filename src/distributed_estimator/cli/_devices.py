"""Devices by name, for `dest plan` and `dest estimate`, and what is done about their noise."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import click
from msgspec import Meta

from ..errors import BackendError, InputError, MissingExtraError
from ..subexperiments import TWIRLED, Extrapolator, Mitigation, Zne
from ..training.settings import Config, about, close_to
from ._options import FieldType, options_of

Remedy = Literal["readout", "zne", "twirling"]
_OF_ACCOUNT = "ibm_"
_ACCOUNT = (
    "see `QiskitRuntimeService.save_account` of qiskit-ibm-runtime, or take a simulated device, "
    "such as fake_manila"
)


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


def find_device(name: str) -> Any:
    """A device as a Qiskit backend.

    Simulated ones are found by the name of their class, such as FakeManilaV2, or of their device,
    such as fake_manila. A name that begins with ibm_ is one of the user's account, and only such a
    name makes the service be asked.

    Raises:
        BackendError: The account, or the service, has no such device; why not is not repeated, as
            it may hold addresses or parts of a token.
        InputError: There is no simulated device of that name.
        MissingExtraError: The runtime is not installed.
    """
    try:
        from qiskit_ibm_runtime import fake_provider
    except ImportError as error:
        raise MissingExtraError("qiskit-ibm-runtime", "runtime", "a device") from error
    if name.lower().startswith(_OF_ACCOUNT):
        return _of_account(name)
    kinds = [getattr(fake_provider, each) for each in dir(fake_provider)]
    known = {kind.backend_name: kind for kind in kinds if hasattr(kind, "backend_name")}
    names = known | {kind.__name__: kind for kind in known.values()}
    folded = {each.lower().removesuffix("v2"): kind for each, kind in names.items()}
    kind = folded.get(name.lower().removesuffix("v2"))
    if kind is None:
        hint = close_to(name.lower().removesuffix("v2"), sorted(known))
        raise InputError(
            f"`device` is {name!r}, and there is no simulated device of that name (those of an "
            f"account begin with {_OF_ACCOUNT}): {hint}"
        )
    return kind()


def _of_account(name: str) -> Any:
    """A device that the user's account has."""
    from qiskit_ibm_runtime import QiskitRuntimeService

    log = logging.getLogger("qiskit_ibm_runtime")
    level = log.level
    log.setLevel(logging.CRITICAL)  # it names instances and addresses
    try:
        service = QiskitRuntimeService()
    except Exception as error:
        raise BackendError(
            f"no account that works was found for {name} ({type(error).__name__}): {_ACCOUNT}"
        ) from None
    else:
        try:
            return service.backend(name)
        except Exception as error:
            raise BackendError(
                f"the account's service gave no device {name} ({type(error).__name__}): {_ACCOUNT}"
            ) from None
    finally:
        log.setLevel(level)
