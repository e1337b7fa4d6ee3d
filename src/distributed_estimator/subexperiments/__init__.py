"""From a plan, observables and bindings to the tasks that are run. Pure."""

from .backend import Backend
from .experiments import FragmentEstimate, FragmentExperiment, Task, make_tasks, unique_rows
from .observables import MeasurementGroup, Observables, Pauli, parse, restrict
from .settings import SettingFamily
from .shifts import Shifts

__all__ = [
    "Backend",
    "FragmentEstimate",
    "FragmentExperiment",
    "MeasurementGroup",
    "Observables",
    "Pauli",
    "SettingFamily",
    "Shifts",
    "Task",
    "make_tasks",
    "parse",
    "restrict",
    "unique_rows",
]
