"""The query of `dest plan`, `estimate` and `costs`: a circuit file, observables, cuts, values.

Circuits are OpenQASM 2, OpenQASM 3 and QPY, recognised by their content. Files come from anywhere,
as standard input does, so nothing of them is run, and a short one cannot fill the memory.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from traceback import walk_tb
from typing import Annotated, Any

import click
import numpy as np
from msgspec import Meta
from qiskit import QiskitError, QuantumCircuit, qasm2, qasm3, qpy
from qiskit.circuit import Gate, Instruction
from qiskit.quantum_info import SparsePauliOp

from ..checks import LARGEST_PRECISION
from ..cutting import AutoCut, CutAt, Cuts, FloatArray, SettingBasis
from ..errors import InputError, ObservableError, shortened
from ..estimator import EstimatorOptions
from ..subexperiments import Allocation
from ..training.models import read_observables
from ..training.settings import Config, Count, Shots, Workers, about
from ..views import counted
from ._bindings import read_bindings, shown_names
from ._files import MAX_BITS, STDIN, named_file, read_bytes
from ._observables import parse_observables
from ._options import PATH, json_option, options_of, take

MAX_OPERATIONS = 1_000_000
DEFAULT_OBSERVABLE = "z_all"
# Before version 13, parameter expressions were stored as the dump of a symbolic algebra library,
# which runs code to read them back; from 13 on, as a plain list of operations.
OLDEST_QPY = 13
_QPY_MAGIC = b"QISKIT"
# Possessive, so that a file of nothing but comments is not tried in every way it can be split up.
_VERSION = re.compile(
    r"\A(?>\s+|//[^\n]*|/\*.*?\*/)*+(?:OPENQASM\s+(\d+)(?:\.\d+)?\s*;)?", re.DOTALL
)
# `<input>:4,2: ` (OpenQASM 2), `4,2: ` and `L4:C2: ` (OpenQASM 3); columns from 0.
_PLACE = re.compile(r"(?:<input>:|L)?(\d+)[,:]C?(\d+): ")
_DEFINITION = re.compile(r"\bgate\s+(\w+)[^{}]*\{([^{}]*)\}")
_NAME = re.compile(r"\s*(\w+)")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_REGISTER = re.compile(r"\b(?:(?:qreg|creg)\s+\w+|qubit|bit)\s*\[([^\]]*)\]")


@dataclass(frozen=True)
class QuerySettings(Config):
    """A query as the command line writes it."""

    observable: Annotated[
        tuple[str, ...],
        about(
            "An observable such as ZZZZ, or a sum such as '0.5*ZZII - IIXX'; the rightmost letter "
            "acts on qubit 0, as in Qiskit. Or z_all (the product of Z on every qubit), z_one (Z "
            "on the last), z_<qubit>, z_mean, z_each (one a qubit). Or @FILE: a line such as "
            "`0.5 ZZII` for each term, `---` between observables; or JSON. Once for each. None: "
            "z_all.",
            metavar="TEXT",
        ),
    ] = ()
    label: Annotated[
        str | None,
        about("A letter per qubit, the first for qubit 0; gates between different ones are cut."),
    ] = None
    max_qubits: Annotated[
        Count | None, about("Search for cuts, into pieces of at most so many qubits.")
    ] = None
    max_price: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        about(
            "With --max-qubits: refuse a plan of a higher price, which is in shots for a standard "
            f"error of 0.01 and those that circuits cost as much as. None: {AutoCut.max_price:g}."
        ),
    ] = None
    cut_at: Annotated[
        tuple[Annotated[int, Meta(ge=0)], ...],
        about(
            "Cut these instructions, such as 3,17; every one counts, from 0. Gates on two qubits, "
            "also where that separates nothing."
        ),
    ] = ()
    parameters: Annotated[
        tuple[str, ...],
        about(
            "Value of a parameter of the circuit in radians, such as theta=pi/2; once for each.",
            "--parameter",
            metavar="NAME=VALUE",
        ),
    ] = ()
    values: Annotated[
        tuple[str, ...],
        about(
            "Values of all parameters, such as 0.1,pi/2,-3*pi/4, in the circuit's order: by name, "
            "as Qiskit sorts them, not as the file declares them. Or @FILE: CSV or JSON with a "
            "binding a row; the first line may name the columns. Once for each.",
            metavar="LIST",
        ),
    ] = ()
    shots: Annotated[Shots | None, about("Shots for each circuit that is run.")] = None
    precision: Annotated[
        Annotated[float, Meta(ge=0, le=LARGEST_PRECISION)] | None, about("Standard error to meet.")
    ] = None
    exact: Annotated[bool, about("The exact value, without shots.")] = False
    shots_total: Annotated[
        Shots | None, about("Shots in all, divided so that the standard error is least.")
    ] = None
    max_shots: Annotated[Shots | None, about("Shots in all that a precision may take at most.")] = (
        None
    )
    allocation: Annotated[
        Allocation, about("How shots are divided between circuits where they are not fixed.")
    ] = "optimal"
    basis: Annotated[
        SettingBasis,
        about("Settings at a cut: full takes fewer shots for an error, minimal fewer circuits."),
    ] = "full"
    seed: Annotated[Annotated[int, Meta(ge=0)], about("Of the shots and the cut search.")] = 7
    workers: Annotated[Workers, about("Tasks to run at the same time.")] = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum((self.label is not None, self.max_qubits is not None, bool(self.cut_at))) > 1:
            raise InputError("`label`, `max_qubits` and `cut_at` all say where to cut: give one")
        if self.max_price is not None and self.max_qubits is None:
            raise InputError("`max_price` limits a search for cuts: give `max_qubits` too")
        accuracies = self.shots, self.precision, self.shots_total, self.exact or None
        if sum(given is not None for given in accuracies) > 1:
            raise InputError(
                "`shots`, `precision`, `shots_total` and `exact` exclude one another: give one"
            )
        if self.max_shots is not None and accuracies not in (
            (None,) * 4,
            (None, self.precision, None, None),
        ):
            raise InputError("`max_shots` limits what a precision takes: give one, or leave it out")

    @property
    def cuts(self) -> Cuts:
        """Labels, numbers, a search, or None for an uncut run."""
        if self.cut_at:
            return CutAt(self.cut_at)
        if self.max_qubits is None:
            return self.label
        search = AutoCut(max_qubits=self.max_qubits, seed=self.seed)
        return search if self.max_price is None else replace(search, max_price=self.max_price)

    @property
    def options(self) -> EstimatorOptions:
        """Shots or precision, seed and setting basis."""
        options = EstimatorOptions(
            shots=self.shots,
            shots_total=self.shots_total,
            max_shots=self.max_shots,
            allocation=self.allocation,
            seed=self.seed,
            setting_basis=self.basis,
        )
        precision = 0.0 if self.exact else self.precision
        return options if precision is None else replace(options, default_precision=precision)


def query_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a verb the options of a query alone."""
    return options_of(QuerySettings)(json_option(command))


def query_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a verb the file argument and the options of a query."""
    return click.argument("file", type=PATH)(query_settings(command))


@dataclass(frozen=True, eq=False)
class Query:
    """One query as the command line asks for it, checked as far as it can be without a plan.

    Attributes:
        file: Where the circuit comes from.
        settings: Cuts, accuracy and workers.
        circuit: The circuit, parameterised or not.
        observables: What to measure.
        names: What each observable is called: as it was written, or its place in a file.
        values: Shape (bindings, parameters), in the circuit's order; NaN where none is given.
        notes: Remarks for the user.
    """

    file: Path
    settings: QuerySettings
    circuit: QuantumCircuit
    observables: tuple[SparsePauliOp, ...]
    names: tuple[str, ...]
    values: FloatArray
    notes: tuple[str, ...]

    @property
    def parameters(self) -> list[str]:
        """The names of the circuit's parameters, in its order."""
        return [parameter.name for parameter in self.circuit.parameters]

    def bindings(self) -> FloatArray:
        """All values, shape (bindings, parameters).

        Raises:
            InputError: A parameter has none.
        """
        for number, row in enumerate(self.values, 1):
            missing = [
                name for name, value in zip(self.parameters, row, strict=True) if value != value
            ]
            if missing:
                where = f" in row {number}" if len(self.values) > 1 else ""
                raise InputError(
                    f"no value{where} for {len(missing)} of {len(row)} parameters "
                    f"({shown_names(missing)}): give each with `--parameter NAME=VALUE`, or all "
                    "with `--values`"
                )
        return self.values

    def sample(self) -> FloatArray:
        """The same for a PUB, random ones in the place of those that are missing.

        Shape (bindings, 1, parameters), as every observable is asked for at every binding.
        """
        rng = np.random.default_rng(self.settings.seed)
        drawn = rng.uniform(-np.pi, np.pi, self.values.shape)
        return np.where(np.isnan(self.values), drawn, self.values)[:, None]


def read_query(file: Path, **options: Any) -> Query:
    """Reads the file of a query, and checks its options.

    Args:
        file: A circuit.
        options: Fields of `QuerySettings`; one that is None or False is at its default.

    Raises:
        InputError: If an option, two options together, or the file is not right.
    """
    settings = take(QuerySettings, options)
    named = [named_file(text) for text in (*settings.observable, *settings.values)]
    if [str(path) for path in (file, *named)].count(STDIN) > 1:
        raise InputError(
            f"standard input, `{STDIN}`, is read once, and several are to come from it: give files "
            "for the others"
        )
    circuit, notes = load_circuit(file)
    found = [
        each
        for text in settings.observable or (DEFAULT_OBSERVABLE,)
        for each in _observables(text, circuit.num_qubits)
    ]
    names, observables = zip(*found, strict=True)
    parameters = [each.name for each in circuit.parameters]
    values = read_bindings(settings.values, settings.parameters, parameters)
    return Query(file, settings, circuit, observables, names, values, notes)


def _observables(text: str, width: int) -> list[tuple[str, SparsePauliOp]]:
    """The observables that one option gives, and what they are called."""
    path = named_file(text)
    if path is None:
        return [
            (f"z_{place}" if len(found) > 1 else part.strip(), observable)
            for part in text.split(",")
            for found in [read_observables(part, width)]
            for place, observable in enumerate(found)
        ]
    found = load_observables(path, width)
    return [(_name(each, f"{path.name}[{n}]"), each) for n, each in enumerate(found)]


def _name(observable: SparsePauliOp, place: str) -> str:
    """A Pauli string, where the observable is one, or else its place."""
    terms = observable.to_list()
    return str(terms[0][0]) if len(terms) == 1 and terms[0][1] == 1 else place


def load_observables(path: Path, width: int) -> tuple[SparsePauliOp, ...]:
    """Reads the observables of a file, on `width` qubits.

    Raises:
        ObservableError: If the file is missing, too large, or holds anything else.
    """
    try:
        content = read_bytes(path, "a file of observables", "one with fewer terms")
        return parse_observables(content, width)
    except InputError as error:
        raise ObservableError(f"`{path}` {error}") from error


def load_circuit(path: Path) -> tuple[QuantumCircuit, tuple[str, ...]]:
    """Reads a circuit as the file has it, and remarks for the user.

    Most OpenQASM files end by measuring, which an expectation value has no use for: a note says
    that outcomes of measurements are ignored.

    Raises:
        InputError: If the file is missing, too large, of no known format, or cannot be parsed.
    """
    try:
        content = read_bytes(path, "an OpenQASM 2, OpenQASM 3 or QPY file", "a smaller circuit")
        parse = _parse_qpy if content.startswith(_QPY_MAGIC) else _parse_qasm
        circuit = parse(content)
        _check_size(circuit)
    except InputError as error:
        raise InputError(f"`{path}` {error}") from error
    measured = circuit.count_ops().get("measure", 0)
    note = f"{counted(measured, 'measurement')}: final ones taken off, outcomes of others ignored"
    return circuit, (note,) if measured else ()


def _parse_qpy(content: bytes) -> QuantumCircuit:
    version = content[len(_QPY_MAGIC)] if len(content) > len(_QPY_MAGIC) else 0
    if version < OLDEST_QPY:
        raise InputError(
            f"is QPY version {version}, and versions before {OLDEST_QPY} are not read because "
            "reading them can run code: save it again with Qiskit 1.3 or later"
        )
    try:
        circuits = qpy.load(io.BytesIO(content))
    except Exception as error:  # what a damaged file raises depends on where it is damaged
        # Several lines are a backtrace of the reader's own code, drawn in colours.
        lines = _message(error).splitlines()
        damaged = "it is cut short or damaged, save it again"
        reason = lines[0] if len(lines) == 1 and isinstance(error, QiskitError) else damaged
        raise InputError(f"({len(content)} bytes) is no readable QPY file: {reason}") from error
    if len(circuits) != 1:
        raise InputError(f"holds {len(circuits)} circuits: save the one to estimate alone")
    return circuits[0]


def _parse_qasm(content: bytes) -> QuantumCircuit:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"is neither QPY nor OpenQASM text: {error.reason}") from error
    match = _VERSION.match(text)
    if match is None or match.end() == len(text):
        raise InputError(
            "is neither QPY nor OpenQASM, as there is nothing in it: name another file"
        )
    version = match[1] or "3"  # where alone it may be left out
    if version not in ("2", "3"):
        raise InputError(f"is OpenQASM {version}: versions 2 and 3 are read")
    # The parsers make every declared bit before they look further: 30 bytes can fill the memory.
    # That of OpenQASM 3 knows sums and products, too.
    declared = sum(map(_size, _REGISTER.findall(_COMMENT.sub(" ", text))))
    if declared > MAX_BITS:
        raise InputError(f"declares {declared} bits, the most that is read is {MAX_BITS}")
    # That of OpenQASM 3 writes gates out at once.
    sizes: dict[str, int] = {}
    for name, body in _DEFINITION.findall(text):
        used = (_NAME.match(line.rpartition("@")[2]) for line in body.split(";"))
        sizes[name] = sum(sizes.get(gate[1], 1) for gate in used if gate)
        _check_operations(sizes[name])
    try:
        with redirect_stderr(io.StringIO()):  # the parser of OpenQASM 3 prints there, too
            if version == "3":
                return qasm3.loads(text)
            # No folder to include from but the parser's own: a circuit is one file.
            return qasm2.loads(
                text, include_path=(), custom_instructions=qasm2.LEGACY_CUSTOM_INSTRUCTIONS
            )
    except Exception as error:
        guessed = "" if match[1] else ", which a file that names no version is taken for"
        raise InputError(
            f"is no readable OpenQASM {version}{guessed}: {_complaint(error)}"
        ) from error


def _size(text: str) -> int:
    """The size of a register, as a declaration writes it."""
    digits = text.strip()
    try:
        return int(digits, 10 if digits.isdecimal() else 0)
    except ValueError as error:
        raise InputError(
            f"declares {shortened(digits)} bits: give sizes as whole numbers, such as 5"
        ) from error


def _check_operations(count: int) -> None:
    if count > MAX_OPERATIONS:
        raise InputError(
            f"comes to {count} operations once its gates are written out, the most that is read is "
            f"{MAX_OPERATIONS}"
        )


def _check_size(circuit: QuantumCircuit) -> None:
    if not circuit.num_qubits:
        raise InputError("holds a circuit without qubits: declare at least one")
    if circuit.num_qubits > MAX_BITS:
        raise InputError(f"holds {circuit.num_qubits} qubits, the most that is read is {MAX_BITS}")
    try:
        operations = _count_operations(circuit, {})
    except RecursionError as error:
        raise InputError("nests gate definitions too deeply: transpile it") from error
    _check_operations(operations)


def _count_operations(circuit: QuantumCircuit, known: dict[str, int]) -> int:
    """Operations of a circuit with the gates that its file defines written out.

    Gates that are each defined by the one before, twice, make a long circuit of a short file:
    `known` holds what was counted, so that counting does not take as long.
    """
    total = 0
    for item in circuit.data:
        kind, name = type(item.operation), item.operation.name
        if name not in known:
            builtin = (kind.__module__ or "").startswith("qiskit.circuit")
            defined = kind in (Gate, Instruction) or not builtin
            definition = item.operation.definition if defined else None
            known[name] = 1 if definition is None else _count_operations(definition, known)
        total += known[name]
    return total


def _complaint(error: Exception) -> str:
    """What is wrong with a text, after line and column: as the parser says, or where it was."""
    message = _message(error)
    stated = _PLACE.match(message)
    if stated:
        return _at(int(stated[1]), int(stated[2]), message[stated.end() :])
    cause = error.__cause__ or error.__context__
    for reason in () if cause is None else cause.args:
        token = getattr(reason, "offendingToken", None)
        if token is not None:
            found = "the end of the file" if token.text == "<EOF>" else f"`{token.text}`"
            return _at(token.line, token.column, f"{found} is not expected there")
    # The importer's own mistakes name no place, but its frames hold the part of the text it was at.
    nodes = (frame.f_locals.get("node") for frame, _ in walk_tb(error.__traceback__))
    spans = [span for node in nodes if (span := getattr(node, "span", None)) is not None]
    return _at(spans[-1].start_line, spans[-1].start_column, message) if spans else message


def _at(line: int, column: int, text: str) -> str:
    return f"line {line}, column {column + 1}: {' '.join(text.split())}"


def _message(error: Exception) -> str:
    """The text of an error, with what would steer the terminal spelt out."""
    text = str(getattr(error, "message", error)).strip() or type(error).__name__
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
