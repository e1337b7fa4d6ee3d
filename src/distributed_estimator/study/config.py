"""What a study's YAML file may hold: pydantic models that refuse unknown keys and other types."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from ..analysis.accuracy import MOST_RADIANS
from ._libraries import pydantic

Field = pydantic.Field
PlainZero = pydantic.AfterValidator(lambda number: number + 0.0)
"""Makes 0.0 of -0.0, which is the same number and would be another run's ID."""

Count = Annotated[int, Field(ge=1, le=10**9)]
Shots = Annotated[int, Field(ge=1, le=10**12)]
Workers = Annotated[int, Field(ge=1, le=4096)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), PlainZero]
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False), PlainZero]
Fraction = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Magnitude = Annotated[float, Field(ge=0, le=MOST_RADIANS, allow_inf_nan=False), PlainZero]
Pipeline = Literal["contracted", "reference"]
Dataset = Literal["iris", "mnist", "breast_cancer", "wine", "digits"]
Counts = Annotated[list[Count], Field(min_length=1)]
Crews = Annotated[list[Workers], Field(min_length=1)]
Places = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Seeds = Annotated[list[Seed], Field(min_length=1)]
Probabilities = Annotated[list[Probability], Field(min_length=1)]
Pipelines = Annotated[list[Pipeline], Field(min_length=1)]
Names = Annotated[list[str], Field(min_length=1)]


class Part(pydantic.BaseModel):
    """A mapping of the file: its keys are known, its values have their type."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)


class ModelPart(Part):
    """The circuit, as `ModelConfig` has it."""

    feature_map: Literal["z", "zz", "angle"] = "z"
    feature_map_reps: Count = 2
    ansatz: Literal["real_amplitudes", "efficient_su2", "two_local"] = "real_amplitudes"
    ansatz_reps: Count = 1
    entanglement: Literal["linear", "circular", "full", "pairwise", "reverse_linear"] = "linear"
    observable: str = "z_all"


class SpeculationPart(Part):
    """When late tasks are run a second time."""

    quantile: Fraction = 0.75
    factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.5
    budget: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False), PlainZero] = 0.25
    restart: bool = False


class PolicyPart(Part):
    """How tasks are handed out; `size` and `delay` are those of batches."""

    dispatch: Literal["eager", "batches"] = "eager"
    size: Count | None = None
    delay: Seconds | None = None
    order: Literal["fifo", "label", "longest", "influence"] = "fifo"
    speculation: SpeculationPart | None = None


class RobustnessPart(Part):
    """What is measured of a network once it is trained, as `AttackConfig` has it."""

    attacks: Annotated[list[Literal["gaussian", "fgsm", "pgd"]], Field(min_length=1)]
    sigma: list[Magnitude] = Field([0.0, 0.05, 0.1, 0.2, 0.3])
    epsilon: list[Magnitude] = Field([0.0, 0.05, 0.1, 0.2, 0.3])
    draws: Count = 10
    pgd_steps: Count = 10
    samples: Count | None = None


class DevicePart(Part):
    """A simulated device, as `DeviceSpec` has it."""

    seconds_per_job: Seconds
    seconds_per_shot: Seconds
    seconds_per_circuit: Seconds = 0.0
    latency: Seconds = 0.0
    jitter: Seconds = 0.0


class DatasetPart(Part):
    """Of what a data set is used; `qubits` are features a sample."""

    qubits: Counts
    reduction: Literal["pca", "pool"] | None = None
    samples: Annotated[int, Field(ge=4)] | None = None
    test_samples: Annotated[int, Field(ge=4)] | None = None


class TrainingDatasetPart(DatasetPart):
    """A data set with the budget of a training on it."""

    epochs: Count
    batch_size: Count | None = None


class VariantPart(Part):
    """One way to ask the same queries; `simulator_threads` null: as many as Aer takes by itself."""

    workers: Workers
    simulator_threads: Workers | None = 1
    defer_measurements: bool = False


class ExperimentPart(Part):
    """What all experiments have; lists are crossed with one another."""

    about: str = ""
    cuts: Places
    seeds: Seeds
    pipelines: Pipelines = Field(["contracted"])
    pool: Literal["threads", "processes", "dask", "ray"] = "threads"
    policies: Names = Field(["eager"])
    straggler_p: Probabilities = Field([0.0])
    straggler_delay: Seconds = 0.0
    subexperiments: Count | None = None
    trace: bool = False


class TrainPart(ExperimentPart):
    """Trainings, each a run."""

    kind: Literal["train"]
    datasets: Annotated[dict[Dataset, TrainingDatasetPart], Field(min_length=1)]
    workers: Crews
    robustness: RobustnessPart | None = None


class QueriesPart(ExperimentPart):
    """Single queries, a number of them each run.

    `workers` are as many as devices on a fleet, and part of each of the `variants`.
    """

    kind: Literal["queries"]
    datasets: Annotated[dict[Dataset, DatasetPart], Field(min_length=1)]
    queries: Count
    reference_queries: dict[Annotated[int, Field(ge=0)], Count] = Field({})
    backend: Literal["statevector", "aer", "fleet"] = "statevector"
    workers: Crews | None = None
    variants: Annotated[list[VariantPart], Field(min_length=1)] | None = None
    devices: Crews | None = None
    device: DevicePart | None = None


Experiment = Annotated[TrainPart | QueriesPart, Field(discriminator="kind")]
Key = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]


class StudyConfig(Part):
    """A study at one scale."""

    name: Key
    about: str = ""
    model: ModelPart = ModelPart()
    shots: Shots
    optimizer: Literal["adam", "sgd", "lbfgs", "cobyla", "spsa"] = "adam"
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    policies: dict[Key, PolicyPart] = Field({"eager": PolicyPart()})
    experiments: Annotated[dict[Key, Experiment], Field(min_length=1)]
    deviations: list[str] = Field([])

    def as_dict(self) -> dict[str, Any]:
        """The configuration for a JSON document."""
        return self.model_dump(mode="json")

    def deciding(self) -> dict[str, Any]:
        """The part that decides what is run: without the texts."""
        document = self.model_dump(mode="json", exclude={"about", "deviations"})
        for experiment in document["experiments"].values():
            del experiment["about"]
        return document
