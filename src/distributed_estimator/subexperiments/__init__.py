"""From a plan, observables and bindings to the tasks that are run. Pure."""

from .experiments import FamilyPart, FragmentExperiment, SettingFamily, SlotwiseMap, unique_rows
from .observables import MeasurementGroup, Observables, Pauli, parse, restrict
from .shots import (
    MOST_ROUNDS,
    MOST_SHOTS,
    PILOT_SHOTS,
    PILOTS,
    ShotsTaken,
    shots_after_failing,
    shots_for_slopes,
    shots_to_meet,
)
from .tasks import (
    Arrays,
    Backend,
    Expected,
    FragmentEstimate,
    FragmentWork,
    Task,
    check_arrays,
    make_tasks,
)

__all__ = [
    "MOST_ROUNDS",
    "MOST_SHOTS",
    "PILOTS",
    "PILOT_SHOTS",
    "Arrays",
    "Backend",
    "Expected",
    "FamilyPart",
    "FragmentEstimate",
    "FragmentExperiment",
    "FragmentWork",
    "MeasurementGroup",
    "Observables",
    "Pauli",
    "SettingFamily",
    "ShotsTaken",
    "SlotwiseMap",
    "Task",
    "check_arrays",
    "make_tasks",
    "parse",
    "restrict",
    "shots_after_failing",
    "shots_for_slopes",
    "shots_to_meet",
    "unique_rows",
]
