"""The estimator's counterpart of `VQC`: three classes of Iris, their probabilities from a cut QNN.

`VQC` takes a sampler and counts bit strings: class k has the probability of the bit strings that
its `interpret` maps to k. A circuit that is cut has no bit strings of the whole, only expectation
values. But a probability is one: that of the projector on those bit strings. So `EstimatorQNN`,
given a projector per class, returns what `VQC` samples, and `NeuralNetworkClassifier` with one-hot
labels and cross entropy, which is what `VQC` is made of, trains it.

Run it with `python examples/vqc.py`; it needs the extra `ml`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qiskit.circuit.library import real_amplitudes, z_feature_map
from qiskit.primitives import StatevectorSampler
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.algorithms import VQC, NeuralNetworkClassifier
from qiskit_machine_learning.circuit.library import qnn_circuit
from qiskit_machine_learning.neural_networks import EstimatorQNN
from qiskit_machine_learning.optimizers import COBYLA
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MinMaxScaler

from distributed_estimator import DistributedEstimator, EstimatorOptions

CUTS = "AABB"  # the two CX gates between qubits 1 and 2 are cut
SHOTS = 4096
SEED = 7

ZERO = SparsePauliOp(["I", "Z"], [0.5, 0.5])  # |0><0|
ONE = SparsePauliOp(["I", "Z"], [0.5, -0.5])  # |1><1|
REST = SparsePauliOp("II")
# Qiskit writes qubit 0 last. Qubits 1 and 0 decide: 00, 01, or 1 and anything.
PROJECTORS = [REST ^ ZERO ^ ZERO, REST ^ ZERO ^ ONE, REST ^ ONE ^ SparsePauliOp("I")]


def interpret(bits: int) -> int:
    """The class of a measured bit string, for `VQC`; the same as `PROJECTORS`."""
    return min(bits % 4, 2)


def load() -> list[NDArray[np.float64]]:
    """Iris with features scaled to [0, 1]: train and test features, train and test labels."""
    data = load_iris()
    x_train, x_test, y_train, y_test = train_test_split(
        data.data, data.target, stratify=data.target, random_state=SEED
    )
    scaler = MinMaxScaler(clip=True).fit(x_train)
    return [scaler.transform(x_train), scaler.transform(x_test), y_train, y_test]


def main() -> dict[str, float]:
    """Train on probabilities from projectors; compare them with those that `VQC` samples."""
    x_train, x_test, y_train, y_test = load()
    feature_map = z_feature_map(4)
    ansatz = real_amplitudes(4, reps=2, entanglement="linear")
    circuit, features, weights = qnn_circuit(feature_map=feature_map, ansatz=ansatz)

    # Exact values: sampled ones of a cut circuit may stray below 0, which is no probability.
    # COBYLA: the library's gradient of cross entropy assumes a softmax, and there is none here.
    qnn = EstimatorQNN(
        circuit=circuit,
        observables=PROJECTORS,
        input_params=features,
        weight_params=weights,
        estimator=DistributedEstimator(CUTS, options=EstimatorOptions(default_precision=0)),
        default_precision=0,
    )
    classifier = NeuralNetworkClassifier(
        qnn,
        loss="cross_entropy",
        one_hot=True,
        optimizer=COBYLA(maxiter=150),
        initial_point=np.random.default_rng(3).uniform(-1, 1, len(weights)),
    )
    classifier.fit(x_train, y_train)
    probabilities = classifier.predict_proba(x_test)

    vqc = VQC(
        feature_map=feature_map,
        ansatz=ansatz,
        sampler=StatevectorSampler(default_shots=SHOTS, seed=SEED),
        interpret=interpret,
        output_shape=3,
    )
    sampled = vqc.neural_network.forward(x_test, classifier.weights)

    numbers = {
        "train_accuracy": float(classifier.score(x_train, y_train)),
        "test_accuracy": float(classifier.score(x_test, y_test)),
        "vqc_test_accuracy": float(np.mean(sampled.argmax(axis=1) == y_test)),
        "largest_difference": float(np.abs(sampled - probabilities).max()),
        "largest_stderr": 0.5 / SHOTS**0.5,  # of a frequency, by its binomial variance
    }
    print(f"accuracy {numbers['train_accuracy']:.2f} in training; chance is 0.33")
    print(f"on the test part {numbers['test_accuracy']:.2f}, cut and exact")
    print(f"on the test part {numbers['vqc_test_accuracy']:.2f}, VQC with the same weights, uncut")
    print(
        f"probabilities differ by {numbers['largest_difference']:.3f} at most, "
        f"VQC's have a standard error of up to {numbers['largest_stderr']:.3f}"
    )
    return numbers


if __name__ == "__main__":
    main()
