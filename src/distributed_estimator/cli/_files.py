"""Circuits from files: OpenQASM 2, OpenQASM 3 and QPY, told apart by what they hold."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stderr
from pathlib import Path
from traceback import walk_tb

from qiskit import QiskitError, QuantumCircuit, qasm2, qasm3, qpy
from qiskit.circuit import Gate, Instruction

from ..errors import InputError

MAX_BYTES = 16 * 2**20
MAX_BITS = 10_000
MAX_OPERATIONS = 1_000_000

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
_REGISTER = re.compile(r"\b(?:(?:qreg|creg)\s+\w+|qubit|bit)\s*\[\s*(\d+)\s*\]")


def load_circuit(path: Path) -> tuple[QuantumCircuit, tuple[str, ...]]:
    """Reads a circuit as the file has it, and remarks for the user.

    Most OpenQASM files end by measuring, which an expectation value has no use for: a note says
    that the estimator takes it off. A measurement that is followed by something it refuses.

    Raises:
        InputError: If the file is missing, too large, of no known format, or cannot be parsed.
    """
    content = _read(path)
    parse = _parse_qpy if content.startswith(_QPY_MAGIC) else _parse_qasm
    circuit = parse(path, content)
    _check_size(path, circuit)
    measured = circuit.count_ops().get("measure", 0)
    notes = (f"final measurements taken off: {measured}",) if measured else ()
    return circuit, notes


def _read(path: Path) -> bytes:
    if not path.is_file():
        problem = "is not a regular file" if path.exists() else "does not exist"
        raise InputError(f"`{path}` {problem}: name an OpenQASM 2, OpenQASM 3 or QPY file")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise InputError(
            f"`{path}` holds {path.stat().st_size / 2**20:.1f} MiB, the most that is read is "
            f"{MAX_BYTES // 2**20} MiB: give a smaller circuit, or use the Python interface"
        )
    return content


def _parse_qpy(path: Path, content: bytes) -> QuantumCircuit:
    version = content[len(_QPY_MAGIC)] if len(content) > len(_QPY_MAGIC) else 0
    if version < OLDEST_QPY:
        raise InputError(
            f"`{path}` is QPY version {version}, and versions before {OLDEST_QPY} are not read "
            f"because reading them can run code: save it again with Qiskit 1.3 or later"
        )
    try:
        circuits = qpy.load(io.BytesIO(content))
    except Exception as error:  # what a damaged file raises depends on where it is damaged
        # Several lines are a backtrace of the reader's own code, drawn in colours.
        lines = _message(error).splitlines()
        damaged = "it is cut short or damaged, save it again"
        reason = lines[0] if len(lines) == 1 and isinstance(error, QiskitError) else damaged
        size = f"{len(content)} bytes"
        raise InputError(f"`{path}` ({size}) is no readable QPY file: {reason}") from error
    if len(circuits) != 1:
        raise InputError(f"`{path}` holds {len(circuits)} circuits: save the one to estimate alone")
    return circuits[0]


def _parse_qasm(path: Path, content: bytes) -> QuantumCircuit:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"`{path}` is neither QPY nor OpenQASM text: {error.reason}") from error
    match = _VERSION.match(text)
    if match is None or match.end() == len(text):
        raise InputError(
            f"`{path}` is neither QPY nor OpenQASM, as there is nothing in it: name another file"
        )
    version = match[1] or "3"  # where alone it may be left out
    if version not in ("2", "3"):
        raise InputError(f"`{path}` is OpenQASM {version}: versions 2 and 3 are read")
    # The parsers make every declared bit before they look further: 30 bytes can fill the memory.
    declared = sum(int(size) for size in _REGISTER.findall(text))
    if declared > MAX_BITS:
        raise InputError(f"`{path}` declares {declared} bits, the most that is read is {MAX_BITS}")
    _check_definitions(path, text)
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
            f"`{path}` is no readable OpenQASM {version}{guessed}: {_complaint(error)}"
        ) from error


def _check_definitions(path: Path, text: str) -> None:
    """Refuses gates that come to too much written out, which the OpenQASM 3 parser does at once."""
    sizes: dict[str, int] = {}
    for name, body in _DEFINITION.findall(text):
        used = (_NAME.match(line.rpartition("@")[2]) for line in body.split(";"))
        sizes[name] = sum(sizes.get(gate[1], 1) for gate in used if gate)
        _check_operations(path, sizes[name])


def _check_operations(path: Path, count: int) -> None:
    if count > MAX_OPERATIONS:
        raise InputError(
            f"`{path}` comes to {count} operations once its gates are written out, the most that "
            f"is read is {MAX_OPERATIONS}"
        )


def _check_size(path: Path, circuit: QuantumCircuit) -> None:
    if not circuit.num_qubits:
        raise InputError(f"`{path}` holds a circuit without qubits: declare at least one")
    if circuit.num_qubits > MAX_BITS:
        raise InputError(
            f"`{path}` holds {circuit.num_qubits} qubits, the most that is read is {MAX_BITS}"
        )
    try:
        operations = _count_operations(circuit, {})
    except RecursionError as error:
        raise InputError(f"`{path}` nests gate definitions too deeply: transpile it") from error
    _check_operations(path, operations)


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
