"""What goes into the pipeline and what comes out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit

from .records import QueryRecord
from .subexperiments import Observables

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Batch:
    """Queries on one circuit, evaluated together.

    Attributes:
        circuit: The circuit.
        observables: The distinct observables.
        observable: Shape (queries,): the observable each query asks for.
        binding: Shape (queries,): the row of `values` it asks at.
        values: Shape (bindings, parameters), in the order of `circuit.parameters`.
    """

    circuit: QuantumCircuit
    observables: Observables
    observable: IntArray
    binding: IntArray
    values: FloatArray


@dataclass(frozen=True)
class Accuracy:
    """How well a value must be known: `shots` a subexperiment, or a target standard error.

    Attributes:
        shots: Shots per subexperiment; None where `precision` rules.
        precision: Standard error to meet; 0 for the exact value.
    """

    shots: int | None
    precision: float

    @property
    def exact(self) -> bool:
        """Whether nothing is sampled."""
        return self.shots is None and self.precision == 0


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Values of a batch, and their derivatives where they were asked for.

    Attributes:
        values: Shape (queries,).
        stderrs: Standard errors of values, shape (queries,); empty beside gradients.
        record: What was logged.
        gradients: Shape (queries, parameters); None where only values were asked for.
        product_formulas: Instructions of the circuit that ran as product formulas, with an error
            beside the exponential.
    """

    values: FloatArray
    stderrs: FloatArray
    record: QueryRecord
    gradients: FloatArray | None = None
    product_formulas: tuple[int, ...] = ()
