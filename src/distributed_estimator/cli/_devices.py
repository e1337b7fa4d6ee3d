"""Where circuits run, and what is done about noise there: options of `dest plan` and `estimate`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import click
from msgspec import Meta
from qiskit.primitives import BaseSamplerV2

from ..backends import StatevectorBackend
from ..backends.device_list import backend_from
from ..backends.named import find_device, simulated_devices
from ..backends.samplers import backend_of
from ..backends.services import without_secrets
from ..errors import (
    BackendError,
    DistributedEstimatorError,
    InputError,
    MissingExtraError,
    shortened,
)
from ..subexperiments import TWIRLED, Extrapolator, Mitigation, Zne
from ..training.settings import Config, about
from ._options import FieldType, options_of

Remedy = Literal["readout", "zne", "twirling"]
NOISELESS = ("statevector", "aer")
DEFAULT = "statevector"
_FORMS = (
    "statevector, aer, aer:noise=FILE, fake_manila or fake:NAME, ibm_fez or ibm:NAME, or "
    "MODULE:FUNCTION"
)


@dataclass(frozen=True)
class NoiseSettings(Config):
    """What is done about noise, as the command line writes it."""

    mitigate: Annotated[
        tuple[Remedy, ...],
        about(
            "What to do about the backend's noise, such as readout,zne: readout errors calibrated "
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


def backend_option(help: str) -> Callable[..., Any]:
    """Adds `--backend` to a verb, for `find_backend`."""
    return click.option("--backend", multiple=True, metavar="SPEC", help=help)


def find_backend(spec: str) -> Any:
    """What runs circuits, as the command line names it.

    Args:
        spec: `statevector`, the local simulator without noise; `aer`; `aer:noise=FILE`, with a
            noise model (`_noise_models`); `fake_manila`, `FakeManilaV2` or `fake:manila`, a
            simulated device; `ibm_fez` or `ibm:fez`, one of the user's account; or
            `module:function`, which is called and gives any of what an estimator takes. The module
            is imported, from what is installed or from the current folder.

    Raises:
        BackendError: An account or a function of the user's does not give it.
        InputError: It is none of these.
        MissingExtraError: A package is not installed.
    """
    kind, colon, rest = spec.partition(":")
    if spec == DEFAULT:
        return StatevectorBackend()
    if kind == "aer":
        return _aer(spec, rest if colon else None)
    if not colon and kind.lower().startswith(("fake", "ibm_")):
        return find_device(spec)
    if kind in ("fake", "ibm") and rest:
        return find_device(rest if rest.lower().startswith(kind) else f"{kind}_{rest}")
    if all(name.isidentifier() for name in (*kind.split("."), rest)):
        return _call(kind, rest)
    raise InputError(f"`--backend` is {shortened(spec)}: {_hint(spec)}give {_FORMS}")


def find_device_of(spec: str) -> Any:
    """The Qiskit backend of what `find_backend` finds, which may report errors of its gates."""
    found = find_backend(spec)
    return backend_of(found) if isinstance(found, BaseSamplerV2) else found


def has_noise(specs: Sequence[str]) -> bool:
    """Whether any backend may have noise."""
    return any(spec not in NOISELESS for spec in specs)


def _aer(spec: str, setting: str | None) -> Any:
    try:
        from qiskit_aer.primitives import SamplerV2
    except ImportError as error:
        raise MissingExtraError("qiskit-aer", "aer", f"`--backend {spec}`") from error
    if setting is None:
        return SamplerV2()
    name, _, file = setting.partition("=")
    if name != "noise" or not file:
        raise InputError(f"`--backend` is {shortened(spec)}: give aer, or aer:noise=FILE")
    from ._noise_models import simulator_from

    return simulator_from(Path(file))


def _call(module: str, function: str) -> Any:
    """What a function of the user's gives."""
    name = f"{module}:{function}"
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # at the end: no file here takes a library's name
    try:
        made = getattr(import_module(module), function)()
    except DistributedEstimatorError:
        raise
    except ModuleNotFoundError as error:
        raise InputError(
            f"`--backend` is {name}, and there is no module {error.name}, neither installed nor in "
            "the current folder"
        ) from error
    except Exception as error:  # the user's code; what it says may hold a token
        raise BackendError(
            f"`--backend {name}`: importing or calling it raised {type(error).__name__}: "
            f"{without_secrets(error)}"
        ) from error
    backend_from(made, f"`--backend {name}` gives")
    return made


def _hint(spec: str) -> str:
    """What may have been meant, if anything."""
    try:
        simulated = list(simulated_devices())
    except MissingExtraError:
        simulated = []
    found = get_close_matches(spec.lower(), [*NOISELESS, *simulated], n=1, cutoff=0.65)
    return f"did you mean `{found[0]}`? Or " if found else ""
