"""TensorBoard event files."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ...errors import InputError
from .._extras import optional_import
from ..config import TrainingConfig
from ..runs import RunFolder
from .tracker import Held, flat


class TensorBoardTracker:
    """Event files, one for each session; an epoch is one event, which is there whole or not."""

    def __init__(self, folder: RunFolder, config: TrainingConfig) -> None:
        self._config = config
        self._path = folder.path / "tensorboard"
        self._is_described = False
        _part("tensorboard")
        if not folder.checkpoint.exists() and any(self._path.glob("*tfevents*")):
            raise InputError(
                f"`{self._path}` holds the events of another run: remove it, or name another "
                "folder for the run"
            )

    def open(self, run_id: str) -> Held:
        """As `Tracker` says."""
        accumulators = _part("tensorboard.backend.event_processing.event_accumulator")
        self._run_id = run_id
        self._path.mkdir(exist_ok=True)
        # The file of a session before may end in half an event: it is never appended to.
        self._file = self._path / f"events.out.tfevents.{time.time_ns()}.{run_id}"
        held = accumulators.EventAccumulator(
            str(self._path), size_guidance={"scalars": 0}, purge_orphaned_data=False
        ).Reload()
        tags = held.Tags()["scalars"]
        self._is_described = bool(tags)
        return {(tag, event.step) for tag in tags for event in held.Scalars(tag)}

    def write(self, epoch: int, scalars: Mapping[str, float], when: float) -> None:
        """As `Tracker` says."""
        proto = _part("tensorboard.compat.proto.summary_pb2").Summary
        summary = proto(
            value=[proto.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        )
        if not self._is_described:
            summary.MergeFrom(self._description(when))
        self._append({"wall_time": when, "step": epoch, "summary": summary})
        self._is_described = True

    def close(self, outcome: str) -> None:
        """Nothing is open between events."""

    def _description(self, when: float) -> Any:
        """The configuration, for the HParams page."""
        values = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in flat(self._config.as_dict())
        }
        hparams = _part("tensorboard.plugins.hparams.summary_v2")
        return hparams.hparams_pb(values, trial_id=self._run_id, start_time_secs=when)

    def _append(self, event: Mapping[str, Any]) -> None:
        # TensorBoard's own `EventFileWriter` writes in a thread, and waits forever if that fails.
        proto = _part("tensorboard.compat.proto.event_pb2").Event
        with self._file.open("ab") as file:
            writer = _part("tensorboard.summary.writer.record_writer").RecordWriter(file)
            if not file.tell():
                begin = proto(wall_time=event["wall_time"], file_version="brain.Event:2")
                writer.write(begin.SerializeToString())
            writer.write(proto(**event).SerializeToString())


def _part(module: str) -> Any:
    return optional_import(module, "tensorboard", "track", "tracking with TensorBoard")
