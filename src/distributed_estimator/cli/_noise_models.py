"""Noise models of Aer from JSON: what `NoiseModel.to_dict` gives, or properties of an IBM device.

Aer's own `NoiseModel.from_dict` is deprecated, and fails on Kraus operators from JSON. Here nothing
of a file is run: it names gates of Qiskit's standard library and holds numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, MissingExtraError, shortened
from ._files import MAX_BITS, read_bytes

_ONE_QUBIT = ("id", "rz", "sx", "x")
"""Gates that a simulator has besides those with noise."""


def simulator_from(path: Path) -> Any:
    """Aer's sampler with the noise of a file.

    Errors of certain qubits make it a device: it has these qubits, and the pairs with errors of
    gates as its couplings.

    Raises:
        InputError: The file holds no noise model.
        MissingExtraError: Aer is not installed.
    """
    try:
        from qiskit_aer import AerSimulator
        from qiskit_aer.primitives import SamplerV2
    except ImportError as error:
        raise MissingExtraError("qiskit-aer", "aer", "a noise model") from error
    noise = read_noise_model(path)
    gates = [each for each in noise.to_dict()["errors"] if each["operations"] != ["measure"]]
    places = [tuple(qubits) for each in gates for qubits in each.get("gate_qubits", ())]
    pairs = sorted({place for place in places if len(place) == 2})
    if max(map(max, places), default=0) >= MAX_BITS:
        raise InputError(f"`{path}` names qubits from {MAX_BITS} on, which no device has")
    options = {"noise_model": noise, "basis_gates": noise.basis_gates}
    if not pairs:
        return SamplerV2(options={"backend_options": options})
    width = 1 + max(map(max, places))
    simulator = AerSimulator(**options, coupling_map=[*map(list, pairs)], n_qubits=width)
    simulator.name = f"aer_simulator_from({path.stem})"
    return SamplerV2.from_backend(simulator)


def read_noise_model(path: Path) -> Any:
    """The noise model in a JSON file.

    Raises:
        InputError: There is none.
    """
    try:
        document = json.loads(read_bytes(path, "a JSON file of a noise model", "a smaller one"))
    except InputError as error:
        raise InputError(f"`{path}` {error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"`{path}` is no readable JSON: {error}") from error
    try:
        if isinstance(document, Mapping) and "errors" in document:
            return _from_errors(document["errors"])
        if isinstance(document, Mapping) and {"qubits", "gates"} <= document.keys():
            return _from_properties(document)
    except MissingExtraError:
        raise
    except Exception as error:  # what a damaged one raises depends on where it is damaged
        raise InputError(
            f"`{path}` is no readable noise model: {type(error).__name__}: {shortened(str(error))}"
        ) from error
    raise InputError(
        f"`{path}` is no noise model: give what `json.dumps(model.to_dict(serializable=True))` of "
        "an Aer NoiseModel gives, or the properties of an IBM device, `backend.properties()"
        ".to_dict()`, as JSON"
    )


def _from_properties(document: Mapping[str, Any]) -> Any:
    try:
        from qiskit_ibm_runtime.models import BackendProperties
    except ImportError as error:
        raise MissingExtraError(
            "qiskit-ibm-runtime", "runtime", "properties of a device"
        ) from error
    from qiskit_aer.noise import NoiseModel

    found = NoiseModel.from_backend_properties(BackendProperties.from_dict(dict(document)))
    return _from_errors(found.to_dict(serializable=True)["errors"])


def _from_errors(errors: Sequence[Mapping[str, Any]]) -> Any:
    from qiskit_aer.noise import NoiseModel, QuantumError, ReadoutError

    noise = NoiseModel(basis_gates=_basis(errors))
    for each in errors:
        places = each.get("gate_qubits") or [None]
        if each["type"] == "roerror":
            error = ReadoutError(each["probabilities"])
            for qubits in places:
                if qubits is None:
                    noise.add_all_qubit_readout_error(error)
                else:
                    noise.add_readout_error(error, qubits)
            continue
        terms = [list(map(_operation, term)) for term in each["instructions"]]
        error = QuantumError(list(zip(terms, each["probabilities"], strict=True)))
        for qubits in places:
            if qubits is None:
                noise.add_all_qubit_quantum_error(error, each["operations"], warnings=False)
            else:
                noise.add_quantum_error(error, each["operations"], qubits, warnings=False)
    return noise


def _basis(errors: Sequence[Mapping[str, Any]]) -> list[str]:
    """Gates of a simulator: those with noise, and a CX where no gate on two qubits has any.

    A gate on two qubits that has none beside one that has would be the one that is taken.
    """
    from qiskit.circuit.library import get_standard_gate_name_mapping

    gates = get_standard_gate_name_mapping()
    noisy = {name for each in errors for name in each["operations"]}
    noisy -= {"measure", "reset", "delay"}
    wide = any(gates[name].num_qubits > 1 for name in noisy if name in gates)
    return sorted({*_ONE_QUBIT, *noisy, *(() if wide else ("cx",))})


def _operation(item: Mapping[str, Any]) -> tuple[Any, list[int]]:
    """An operation of an error, and its qubits."""
    from qiskit.circuit.library import (
        PauliGate,
        Reset,
        UnitaryGate,
        get_standard_gate_name_mapping,
    )
    from qiskit.quantum_info import Kraus

    name, params = item["name"], item.get("params") or []
    if name == "pauli":
        found: Any = PauliGate(*params)
    elif name == "kraus":
        found = Kraus([*map(_matrix, params)]).to_instruction()
    elif name == "unitary":
        found = UnitaryGate(*map(_matrix, params))
    elif name == "reset":
        found = Reset()
    else:
        found = type(get_standard_gate_name_mapping()[name])(*params)
    return found, item["qubits"]


def _matrix(rows: Any) -> Any:
    """A matrix whose numbers are pairs of real and imaginary part."""
    parts = np.asarray(rows, dtype=float)
    return parts[..., 0] + 1j * parts[..., 1]
