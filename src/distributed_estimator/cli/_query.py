"""What `dest plan` and `dest estimate` are both asked: a file, an observable, cuts, parameters."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import click
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp

from ..checks import LARGEST_PRECISION
from ..cutting import AutoCut, SettingBasis
from ..errors import InputError, ObservableError
from ..estimator import EstimatorOptions
from ..subexperiments import MOST_SHOTS
from ..training.models import read_observables
from ._files import load_circuit
from ._paths import PATH
from ._run_options import Finite

Cuts: TypeAlias = str | AutoCut | None

_OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option(
        "--observable",
        metavar="PAULIS",
        help="What to measure: ZZZZ, or a sum such as '0.5*ZZII - IIXX'; the rightmost letter acts "
        "on qubit 0, as in Qiskit. Or z_all, z_one, z_<qubit>, z_mean.  [default: z_all]",
    ),
    click.option(
        "--label",
        metavar="LABELS",
        help="A letter per qubit, the first for qubit 0; gates between different letters are cut.",
    ),
    click.option(
        "--max-qubits",
        type=click.IntRange(min=1),
        metavar="N",
        help="Search for cuts, into pieces of at most N qubits.",
    ),
    click.option(
        "--parameter",
        "parameters",
        multiple=True,
        metavar="NAME=VALUE",
        help="Value of a parameter of the circuit, in radians; once for each.",
    ),
    click.option(
        "--shots",
        type=click.IntRange(1, MOST_SHOTS),
        metavar="N",
        help="Shots for each circuit that is run.",
    ),
    click.option(
        "--precision",
        type=Finite(0, LARGEST_PRECISION),
        metavar="P",
        help="Standard error to meet.",
    ),
    click.option("--exact", is_flag=True, help="The exact value, without shots."),
    click.option(
        "--basis",
        type=click.Choice(["full", "minimal"]),
        default="full",
        show_default=True,
        help="Settings at a cut: full takes fewer shots for an error, minimal runs fewer circuits.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=7,
        show_default=True,
        help="Of the shots and the cut search.",
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        default=8,
        show_default=True,
        help="Tasks to run at the same time.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
)


def query_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a verb the file argument and the options of a query."""
    return click.argument("file", type=PATH)(query_settings(command))


def query_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a verb the options of a query alone."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


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


def read_query(
    file: Path,
    observable: str | None,
    label: str | None,
    max_qubits: int | None,
    parameters: Sequence[str],
    shots: int | None,
    precision: float | None,
    exact: bool,
    basis: SettingBasis,
    seed: int,
    workers: int,
) -> Query:
    """Parses the options of a query and reads its file.

    Raises:
        InputError: If an option, two options together, or the file is not right.
    """
    if label is not None and max_qubits is not None:
        raise InputError("`--label` and `--max-qubits` both say where to cut: give one of them")
    if (shots is not None) + (precision is not None) + exact > 1:
        raise InputError("`--shots`, `--precision` and `--exact` exclude one another: give one")
    if precision is None:
        precision = 0.0 if exact else EstimatorOptions().default_precision
    loaded = load_circuit(file)
    return Query(
        file=file,
        circuit=loaded.circuit,
        observable=_one_observable(
            "z_all" if observable is None else observable, loaded.circuit.num_qubits
        ),
        cuts=AutoCut(max_qubits=max_qubits, seed=seed) if max_qubits is not None else label,
        values=_values(parameters),
        options=EstimatorOptions(
            shots=shots,
            default_precision=precision,
            seed=seed,
            setting_basis=basis,
        ),
        workers=workers,
        notes=loaded.notes,
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
