"""How a trained network stands up to perturbed samples (paper §V, RQ5, Fig. 8)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from ..analysis.load import QueryTotals, load_queries
from ..errors import InputError, RecordError
from ..records import atomic
from .attacks import AttackConfig
from .config import TrainingConfig
from .measure import Measured, count_evaluations, measure
from .runs import QueryMeter, RunFolder, write_json
from .trained import Trained, load_trained

KIND = "robustness"
MOST_REFERENCE_HOURS = 1.0
"""The reference pipeline runs one query after the other: tens of milliseconds each, or seconds."""

Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class RobustnessFiles:
    """Where a result goes: the JSON document, and beside it the figure and the query log.

    Attributes:
        result: The document.
        replace: Whether an earlier result there may be lost.
    """

    result: Path
    replace: bool = False

    @property
    def figure(self) -> Path:
        """The PNG."""
        return self.result.with_suffix(".png")

    @property
    def queries(self) -> Path:
        """Query records of the attacks."""
        return self.result.with_name(f"{self.result.stem}-queries.jsonl")

    def check(self) -> Self:
        """Returns itself if all files can be written without loss of anyone else's.

        Raises:
            InputError: The name or its folder does not serve, a file there is not an earlier
                result's, or that is not to be replaced.
        """
        if self.result.suffix != ".json":
            raise InputError(f"`{self.result}` does not end in .json: name a file that does")
        folder = self.result.parent
        if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            raise InputError(
                f"`{self.result}` cannot be written: `{folder}` is no folder to write to, name "
                "another file with --out"
            )
        taken = [path for path in (self.result, self.figure, self.queries) if path.exists()]
        if taken and not _is_result(self.result):
            raise InputError(
                f"`{taken[0]}` is there and belongs to something else: name another file with --out"
            )
        if taken and not self.replace:
            raise InputError(
                f"`{self.result}` holds an earlier measurement: name another file with --out, or "
                "give --replace to lose that one"
            )
        return self


@dataclass(frozen=True)
class RobustnessResult:
    """What an evaluation came to.

    Attributes:
        workload: Name of the task.
        config: How the network was trained; `shots` is None if it was attacked without shots.
        label: The partition label; None: not cut by label.
        epoch: Epochs the network was trained.
        finished: Whether training had ended.
        attacks: What was measured; its seed is the one that was used.
        measured: The accuracies.
        totals: What the queries cost.
        seconds: Wall time.
        files: Where the files are.
    """

    workload: str
    config: TrainingConfig
    label: str | None
    epoch: int
    finished: bool
    attacks: AttackConfig
    measured: Measured
    totals: QueryTotals
    seconds: float
    files: RobustnessFiles

    @property
    def title(self) -> str:
        """What was attacked, in one line."""
        config = self.config
        cut = f"cut {self.label}" if self.label else "not cut"
        if config.max_qubits is not None:
            cut = f"fragments of at most {config.max_qubits} qubits"
        shots = "exact" if config.shots is None else f"{config.shots} shots a circuit"
        state = "" if self.finished else ", not finished"
        return (
            f"{self.workload}, {cut}, {shots}, {config.optimizer}, epoch {self.epoch} of "
            f"{config.epochs}{state}, seed {config.seed}"
        )

    def as_dict(self) -> dict[str, Any]:
        """The result for a JSON document, without the place of its files."""
        fields = asdict(self)
        del fields["files"]
        measured = fields.pop("measured")
        measured["curves"] = {
            curve.attack: {
                "mean_accuracy": curve.mean_accuracy,
                "points": [asdict(point) for point in curve.points],
            }
            for curve in self.measured.curves
        }
        return {
            "kind": KIND,
            "schema_version": 1,
            "summary": self.measured.summary,
            **measured,
            **fields,
            "config": self.config.as_dict(),
        }


def evaluate_robustness(
    folder: RunFolder,
    attacks: AttackConfig,
    files: RobustnessFiles | None = None,
    *,
    exact: bool = False,
    figure: bool = True,
    advance: Advance | None = None,
) -> RobustnessResult:
    """Perturbs the test part of a run's data and writes down how its network does.

    The run's own files are only read. Result, figure and query log appear together at the end.

    Args:
        folder: The run; one that has not ended is taken as its last checkpoint left it.
        attacks: What to measure.
        files: Where the result goes; None: robustness.json in the run's folder.
        exact: Whether to evaluate without shots, whatever the run did.
        figure: Whether to draw one; an earlier figure is removed if not.
        advance: Told how many evaluations of a sample are done, and of how many.

    Raises:
        CheckpointError: There is no checkpoint, it is damaged or of other data.
        InputError: The files cannot be written where they are to go, or the attacks are too many.
        MissingExtraError: Matplotlib is not installed, and a figure wanted.
        RecordError: The operating system refused to write; earlier results are intact.
    """
    files = (files or RobustnessFiles(folder.path / "robustness.json")).check()
    if figure:
        from ..analysis.charts import require_altair

        require_altair()
    try:
        with ExitStack() as stack:
            log = stack.enter_context(atomic(files.queries))
            result = _evaluate(folder, attacks, files, log, exact, advance)
            if figure:
                picture = stack.enter_context(atomic(files.figure))
                measured = result.measured
                from ..analysis.charts import robustness_figure

                robustness_figure(measured.clean, measured.curves, picture, result.title)
            write_json(files.result, result.as_dict())
            if not figure:
                files.figure.unlink(missing_ok=True)
    except OSError as error:
        raise RecordError(
            f"cannot write {error.filename or files.result}: {error.strerror or error}"
        ) from error
    return result


def _evaluate(
    folder: RunFolder,
    attacks: AttackConfig,
    files: RobustnessFiles,
    log: Path,
    exact: bool,
    advance: Advance | None,
) -> RobustnessResult:
    started = time.perf_counter()
    trained = load_trained(folder, exact=exact, log=log)
    config = trained.config
    attacks = replace(attacks, seed=config.seed if attacks.seed is None else attacks.seed)
    total = sum(count_evaluations(trained, attacks))
    if config.pipeline == "reference":
        _check_reference(trained, attacks, folder)
    done = 0

    def count(samples: int) -> None:
        nonlocal done
        done += samples
        if advance is not None:
            advance(done, total)

    with closing(trained.classifier.layer.network):
        measured = measure(trained, attacks, count)
    cuts = config.cuts_for(trained.model.num_qubits)
    return RobustnessResult(
        workload=trained.workload.name,
        config=config,
        label=cuts if isinstance(cuts, str) else None,
        epoch=trained.epoch,
        finished=trained.finished,
        attacks=attacks,
        measured=measured,
        totals=QueryMeter(log).read(),
        seconds=time.perf_counter() - started,
        files=files,
    )


def _check_reference(trained: Trained, attacks: AttackConfig, folder: RunFolder) -> None:
    """Refuses what would take the reference pipeline hours, and says how long."""
    values, gradients = count_evaluations(trained, attacks)
    # Two shifts for each place a parameter has; weights are differentiated by as well.
    places = sum(
        len(angle.parameters) for gate in trained.model.circuit.data for angle in gate.params
    )
    queries = trained.model.num_outputs * (values + gradients * (1 + 2 * places))
    known = QueryTotals.of(load_queries(folder.queries))
    hours = queries * known.seconds / known.queries / 3600
    if hours > MOST_REFERENCE_HOURS:
        raise InputError(
            f"these attacks take about {queries} queries of the reference pipeline, {hours:.2g} "
            f"hours at the pace of its training, and {MOST_REFERENCE_HOURS:g} is the most: attack "
            "fewer samples, in fewer draws or steps, or leave pgd out"
        )


def _is_result(path: Path) -> bool:
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("kind") == KIND
