"""Qiskit Machine Learning's `NeuralNetworkClassifier` on circuits of at most two qubits.

Run it with `python examples/classifier.py`; it needs the extra `ml`.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from qiskit.circuit.library import real_amplitudes, z_feature_map
from qiskit.primitives import StatevectorEstimator
from qiskit_machine_learning.algorithms import NeuralNetworkClassifier
from qiskit_machine_learning.circuit.library import qnn_circuit
from qiskit_machine_learning.neural_networks import EstimatorQNN
from qiskit_machine_learning.optimizers import ADAM
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MinMaxScaler

from distributed_estimator import (
    AutoCut,
    DistributedEstimator,
    EstimatorOptions,
    FragmentGradient,
)

SHOTS = 1024
SEED = 7


def load() -> list[NDArray[np.float64]]:
    """Setosa (-1) or versicolor (+1) by 4 features: train and test features, train and test labels.

    The first 100 of the 150 flowers are of these two species.
    """
    data = load_iris()
    features, labels = data.data[:100], 2.0 * data.target[:100] - 1
    x_train, x_test, y_train, y_test = train_test_split(
        features, labels, test_size=0.2, stratify=labels, random_state=SEED
    )
    scaler = MinMaxScaler(clip=True).fit(x_train)
    return [scaler.transform(x_train), scaler.transform(x_test), y_train, y_test]


def main() -> dict[str, float]:
    """Fit on two of the Iris species, score on the test part, keep the weights in a file."""
    x_train, x_test, y_train, y_test = load()
    circuit, features, weights = qnn_circuit(
        feature_map=z_feature_map(4),
        ansatz=real_amplitudes(4, reps=1, entanglement="linear"),
    )
    network = {"circuit": circuit, "input_params": features, "weight_params": weights}

    estimator = DistributedEstimator(
        AutoCut(max_qubits=2),  # finds out by itself where to cut the 4 qubits
        options=EstimatorOptions(shots=SHOTS, seed=SEED),
    )
    qnn = EstimatorQNN(**network, estimator=estimator, gradient=FragmentGradient(estimator))
    classifier = NeuralNetworkClassifier(
        qnn,
        optimizer=ADAM(maxiter=40, lr=0.1),
        initial_point=np.random.default_rng(SEED).uniform(-np.pi, np.pi, len(weights)),
    )
    classifier.fit(x_train, y_train)

    # A trained model is its weights: plain numbers, which any other estimator takes as well.
    with TemporaryDirectory() as folder:
        file = Path(folder, "weights.npy")
        np.save(file, classifier.weights)
        restored = np.load(file)
    uncut = EstimatorQNN(**network, estimator=StatevectorEstimator(), default_precision=0)
    outputs = uncut.forward(x_test, restored)[:, 0]

    classical = LogisticRegression().fit(x_train, y_train)
    numbers = {
        "train_accuracy": float(classifier.score(x_train, y_train)),
        "test_accuracy": float(classifier.score(x_test, y_test)),
        "uncut_test_accuracy": float(np.mean(np.sign(outputs) == y_test)),
        "mean_difference": float(np.mean(np.abs(qnn.forward(x_test, restored)[:, 0] - outputs))),
        "classical_test_accuracy": float(classical.score(x_test, y_test)),
    }
    print(f"training part  {numbers['train_accuracy']:.2f}  fragments of 2 qubits, {SHOTS} shots")
    print(f"test part      {numbers['test_accuracy']:.2f}  fragments of 2 qubits, {SHOTS} shots")
    print(f"               {numbers['uncut_test_accuracy']:.2f}  same weights, uncut and exact")
    print(f"               {numbers['classical_test_accuracy']:.2f}  logistic regression")
    print(f"outputs of the cut network are {numbers['mean_difference']:.3f} off on average")
    return numbers


if __name__ == "__main__":
    main()
