"""The query of `dest plan`, `estimate` and `predict`: a file, an observable, cuts, parameters."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import click
from msgspec import Meta
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp

from ..checks import LARGEST_PRECISION
from ..cutting import AutoCut, SettingBasis
from ..errors import InputError, ObservableError
from ..estimator import EstimatorOptions
from ..training.models import read_observables
from ..training.settings import Config, Count, Shots, about
from ._files import load_circuit
from ._options import json_option, options_of, take
from ._paths import PATH

Cuts: TypeAlias = str | AutoCut | None


@dataclass(frozen=True)
class QuerySettings(Config):
    """A query as the command line writes it."""

    observable: Annotated[
        str,
        about(
            "An observable such as ZZZZ, or a sum such as '0.5*ZZII - IIXX'; the rightmost letter "
            "acts on qubit 0, as in Qiskit. Or z_all, z_one, z_<qubit>, z_mean."
        ),
    ] = "z_all"
    label: Annotated[
        str | None,
        about("A letter per qubit, the first for qubit 0; gates between different ones are cut."),
    ] = None
    max_qubits: Annotated[
        Count | None, about("Search for cuts, into pieces of at most so many qubits.")
    ] = None
    parameters: Annotated[
        tuple[str, ...],
        about("Value of a parameter of the circuit, in radians; once for each.", "--parameter"),
    ] = ()
    shots: Annotated[Shots | None, about("Shots for each circuit that is run.")] = None
    precision: Annotated[
        Annotated[float, Meta(ge=0, le=LARGEST_PRECISION)] | None, about("Standard error to meet.")
    ] = None
    exact: Annotated[bool, about("The exact value, without shots.")] = False
    basis: Annotated[
        SettingBasis,
        about("Settings at a cut: full takes fewer shots for an error, minimal fewer circuits."),
    ] = "full"
    seed: Annotated[Annotated[int, Meta(ge=0)], about("Of the shots and the cut search.")] = 7
    workers: Annotated[Count, about("Tasks to run at the same time.")] = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label is not None and self.max_qubits is not None:
            raise InputError("`label` and `max_qubits` both say where to cut: give one of them")
        if (self.shots is not None) + (self.precision is not None) + self.exact > 1:
            raise InputError("`shots`, `precision` and `exact` exclude one another: give one")

    @property
    def cuts(self) -> Cuts:
        """Labels, a search, or None for an uncut run."""
        if self.max_qubits is None:
            return self.label
        return AutoCut(max_qubits=self.max_qubits, seed=self.seed)

    @property
    def options(self) -> EstimatorOptions:
        """Shots or precision, seed and setting basis."""
        precision = 0.0 if self.exact else self.precision
        return EstimatorOptions(
            shots=self.shots,
            default_precision=EstimatorOptions().default_precision
            if precision is None
            else precision,
            seed=self.seed,
            setting_basis=self.basis,
        )


def query_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a verb the file argument and the options of a query."""
    return click.argument("file", type=PATH)(query_settings(command))


def query_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a verb the options of a query alone."""
    return options_of(QuerySettings)(json_option(command))


@dataclass(frozen=True, eq=False)
class Query:
    """One query as the command line asks for it, checked as far as it can be without a plan.

    Attributes:
        file: Where the circuit comes from.
        circuit: The circuit, parameterised or not.
        observable: What to measure.
        cuts: Labels, a search, or None for an uncut run.
        values: The values given, by parameter name.
        options: Shots or precision, seed and setting basis.
        workers: Size of the pool.
        notes: Remarks for the user.
    """

    file: Path
    circuit: QuantumCircuit
    observable: SparsePauliOp
    cuts: Cuts
    values: dict[str, float]
    options: EstimatorOptions
    workers: int
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        known = {parameter.name for parameter in self.circuit.parameters}
        unknown = sorted(set(self.values) - known)
        if unknown:
            has = ", ".join(sorted(known)) if known else "none"
            raise InputError(
                f"`--parameter` names {', '.join(unknown)}, the circuit's parameters are: {has}"
            )

    def binding(self) -> list[float]:
        """A value for every parameter, in the circuit's order.

        Raises:
            InputError: If a parameter has none.
        """
        names = [parameter.name for parameter in self.circuit.parameters]
        missing = [name for name in names if name not in self.values]
        if missing:
            shown = ", ".join(missing[:8]) + (", …" if len(missing) > 8 else "")
            raise InputError(
                f"no value for {len(missing)} of {len(names)} parameters ({shown}): give each with "
                f"`--parameter NAME=VALUE`"
            )
        return [self.values[name] for name in names]


def read_query(file: Path, **options: Any) -> Query:
    """Reads the file of a query, and checks its options.

    Args:
        file: A circuit.
        options: Fields of `QuerySettings`; one that is None or False is at its default.

    Raises:
        InputError: If an option, two options together, or the file is not right.
    """
    asked = take(QuerySettings, options)
    circuit, notes = load_circuit(file)
    return Query(
        file=file,
        circuit=circuit,
        observable=_one_observable(asked.observable, circuit.num_qubits),
        cuts=asked.cuts,
        values=_values(asked.parameters),
        options=asked.options,
        workers=asked.workers,
        notes=notes,
    )


def _one_observable(text: str, num_qubits: int) -> SparsePauliOp:
    observables = read_observables(text, num_qubits)
    if len(observables) > 1:
        raise ObservableError(
            f"the observable {text} stands for {len(observables)}, and one is estimated: name one "
            "of them, such as z_0, or their mean, z_mean"
        )
    return observables[0]


def _values(parameters: Sequence[str]) -> dict[str, float]:
    """Numbers by name; raises `InputError` if a name is given twice."""
    pairs = [_parameter(text) for text in parameters]
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise InputError(f"`--parameter` gives {', '.join(twice)} more than once: give each once")
    return dict(pairs)


def _parameter(text: str) -> tuple[str, float]:
    """A name and a number from `NAME=VALUE`.

    Raises:
        InputError: If the text has another form.
    """
    name, separator, value = (part.strip() for part in text.partition("="))
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (name and separator and math.isfinite(number)):
        raise InputError(
            f"`--parameter {text}` cannot be read: give NAME=VALUE, with a finite number, such as "
            "theta=0.5"
        )
    return name, number
