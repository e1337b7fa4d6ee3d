"""From a plan, observables and bindings to the tasks that are run. Pure."""

from .experiments import FamilyPart as FamilyPart
from .experiments import FragmentExperiment as FragmentExperiment
from .experiments import SettingFamily as SettingFamily
from .experiments import SlotwiseMap as SlotwiseMap
from .experiments import unique_rows as unique_rows
from .observables import MeasurementGroup as MeasurementGroup
from .observables import Observables as Observables
from .observables import Pauli as Pauli
from .observables import parse as parse
from .observables import restrict as restrict
from .shots import MOST_ROUNDS as MOST_ROUNDS
from .shots import MOST_SHOTS as MOST_SHOTS
from .shots import PILOT_SHOTS as PILOT_SHOTS
from .shots import PILOTS as PILOTS
from .shots import ShotsTaken as ShotsTaken
from .shots import shots_after_failing as shots_after_failing
from .shots import shots_for_slopes as shots_for_slopes
from .shots import shots_to_meet as shots_to_meet
from .tasks import Arrays as Arrays
from .tasks import Backend as Backend
from .tasks import Expected as Expected
from .tasks import FragmentEstimate as FragmentEstimate
from .tasks import FragmentWork as FragmentWork
from .tasks import Task as Task
from .tasks import check_arrays as check_arrays
from .tasks import make_tasks as make_tasks
