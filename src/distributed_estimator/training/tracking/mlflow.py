"""MLflow runs, in a store of their own or wherever the user says."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

from .._extras import optional_import
from ..config import TrainingConfig
from ..runs import RunFolder
from .tracker import Held, flat

_log = logging.getLogger(__name__)
_RUN_ID_TAG = "distributed_estimator.run_id"
_EXPERIMENT = "distributed-estimator"
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_FILE_STORE": "true",  # newer versions take databases alone without it
}


class MLflowTracker:
    """An MLflow run, found again by a tag with the run id of the records."""

    def __init__(self, folder: RunFolder, config: TrainingConfig) -> None:
        self._parameters = {name: str(value) for name, value in flat(config.as_dict())}
        self._name = folder.path.absolute().name
        self._store = folder.path.absolute() / "mlruns"
        chosen = os.environ.get("MLFLOW_TRACKING_URI")
        self._uri = chosen or self._store.as_uri()
        self._is_ours = not chosen
        with _kept_quiet():
            _part("mlflow")

    def open(self, run_id: str) -> Held:
        """As `Tracker` says."""
        with _kept_quiet():
            self._client = _part("mlflow").MlflowClient(tracking_uri=self._uri)
            try:
                return self._open(run_id)
            except OSError:
                raise
            except Exception as error:  # MLflow has no one name for a store that it cannot read
                if not self._is_ours:
                    raise
                self._set_aside(error)
                return self._open(run_id)

    def write(self, epoch: int, scalars: Mapping[str, float], when: float) -> None:
        """As `Tracker` says."""
        with _kept_quiet():
            metric = _part("mlflow.entities").Metric
            milliseconds = int(when * 1000)
            self._client.log_batch(
                self._id, [metric(name, v, milliseconds, epoch) for name, v in scalars.items()]
            )

    def close(self, outcome: str) -> None:
        """As `Tracker` says."""
        with _kept_quiet():
            self._client.set_terminated(self._id, outcome)

    def _open(self, run_id: str) -> Held:
        if self._is_ours:  # MLflow makes its folders once for a process and a place
            (self._store / ".trash").mkdir(parents=True, exist_ok=True)
        run = self._find(run_id)
        self._id = run.info.run_id
        held: Held = set()
        for name in run.data.metrics:
            held.update((name, m.step) for m in self._client.get_metric_history(self._id, name))
        if run.info.status != "RUNNING":
            self._client.update_run(self._id, status="RUNNING")
        self._describe(run.data.params)
        return held

    def _find(self, run_id: str) -> Any:
        experiment = self._experiment()
        found = self._client.search_runs([experiment], f"tags.`{_RUN_ID_TAG}` = '{run_id}'")
        if found:
            return found[0]
        return self._client.create_run(experiment, tags={_RUN_ID_TAG: run_id}, run_name=self._name)

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _EXPERIMENT
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            return str(self._client.create_experiment(name))
        return str(experiment.experiment_id)

    def _describe(self, held: Mapping[str, str]) -> None:
        """Logs the parameters that are missing; MLflow lets none be changed."""
        torn = [name for name, value in self._parameters.items() if held.get(name, value) != value]
        if torn and self._is_ours:
            raise ValueError(f"parameter {torn[0]} is not that of the run")
        param = _part("mlflow.entities").Param
        missing = [param(name, v) for name, v in self._parameters.items() if name not in held]
        if missing:
            self._client.log_batch(self._id, params=missing)

    def _set_aside(self, error: Exception) -> None:
        """MLflow's file store is not safe against a kill, but all in ours is in the log too."""
        siblings = self._store.parent.glob(f"{self._store.name}.damaged-*")
        aside = self._store.with_name(f"{self._store.name}.damaged-{len(list(siblings))}")
        self._store.rename(aside)
        _log.warning("`%s` is damaged (%s): now `%s`, made anew", self._store, error, aside)


def _part(module: str) -> Any:
    return optional_import(module, "mlflow-skinny", "track", "tracking with MLflow")


@contextmanager
def _kept_quiet() -> Iterator[None]:
    """MLflow without telemetry, and what it prints on stderr; the environment is put back."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
