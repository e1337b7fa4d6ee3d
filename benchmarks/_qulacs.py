"""Qulacs as a counterpart: the same circuits, gate by gate, and the value of Z on every qubit."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

from benchmarks._workload import Outcome, Workload

MISSING = "qulacs is not installed: pip install qulacs"


def missing() -> str | None:
    """Why Qulacs cannot be measured, or None if it can."""
    return None if find_spec("qulacs") is not None else MISSING


def query(load: Workload) -> Callable[[], Outcome]:
    """All queries of the workload on parametric circuits; `OMP_NUM_THREADS` rules its threads."""
    from qulacs import Observable, ParametricQuantumCircuit, QuantumState

    qubits = load.num_qubits
    circuit, angles = ParametricQuantumCircuit(qubits), []
    for item in load.circuit.data:
        name, places = item.operation.name, [load.circuit.find_bit(q).index for q in item.qubits]
        if name == "h":
            circuit.add_H_gate(*places)
        elif name == "cx":
            circuit.add_CNOT_gate(*places)
        elif name == "ry":
            circuit.add_parametric_RY_gate(*places, 0.0)
            angles.append((item.operation.params[0], -1.0))
        elif name == "p":  # up to a phase, which no value depends on
            circuit.add_parametric_RZ_gate(*places, 0.0)
            angles.append((item.operation.params[0], -1.0))
        else:
            raise ValueError(f"gate {name}: the workload has h, p, ry and cx")
    parameters = list(load.circuit.parameters)
    observable = Observable(qubits)
    observable.add_operator(1.0, " ".join(f"Z {qubit}" for qubit in range(qubits)))
    # Coefficients of every angle, which all are multiples of one parameter.
    columns = [parameters.index(next(iter(angle.parameters))) for angle, _ in angles]
    factors = [
        sign * float(angle.bind({parameters[c]: 1.0}).numeric()) if hasattr(angle, "bind") else sign
        for (angle, sign), c in zip(angles, columns, strict=True)
    ]

    def call() -> Outcome:
        values = []
        for row in load.bindings:
            for number, (column, factor) in enumerate(zip(columns, factors, strict=True)):
                circuit.set_parameter(number, factor * row[column])
            state = QuantumState(qubits)
            circuit.update_quantum_state(state)
            values.append(observable.get_expectation_value(state))
        return Outcome(np.array(values))

    return call
