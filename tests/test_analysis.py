"""Records in, totals, tables and figures out."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from record_examples import STEP, query_record

from distributed_estimator.analysis import charts
from distributed_estimator.analysis.charts import training_figure
from distributed_estimator.analysis.load import (
    QueryTotals,
    load_queries,
    load_training,
    stage_table,
    stages_of,
)
from distributed_estimator.errors import MissingExtraError, RecordError
from distributed_estimator.records import QueryRecord, RecordWriter, TrainingRecord, to_dict


def query(partition=0.1, generate=0.2, execute=0.5, reconstruct=0.2, **changes) -> QueryRecord:
    stages = {"partition": partition, "generate": generate, "execute": execute}
    stages["reconstruct"] = reconstruct
    return query_record(**{f"t_{name}": seconds for name, seconds in stages.items()}, **changes)


def step(number: int, **metrics: float) -> TrainingRecord:
    return replace(STEP, step=number, epoch=number, loss=1 / (1 + number), metrics=metrics)


STEPS = [step(i, train_accuracy=0.5 + i / 10, test_accuracy=0.5) for i in range(4)]


def test_stages_add_up_to_the_total_and_shares_to_one():
    rows = stage_table([query(), query(execute=1.5), query(reconstruct=0.0)])
    *stages, total = rows
    assert [row.stage for row in rows] == [
        "partition",
        "generate",
        "execute",
        "reconstruct",
        "total",
    ]
    assert sum(row.seconds for row in stages) == pytest.approx(total.seconds)
    assert sum(row.share for row in stages) == pytest.approx(1.0)
    assert total.share == pytest.approx(1.0)
    assert total.seconds == pytest.approx(1.0 + 2.0 + 0.8)


def test_medians_are_over_records_and_shares_within_a_record():
    records = [query(0, 0, 0.8, 0.2), query(0, 0, 0.5, 0.5), query(0, 0, 9.0, 1.0)]
    reconstruct = stage_table(records)[3]
    assert reconstruct.median_seconds == pytest.approx(0.5)
    assert reconstruct.median_share == pytest.approx(0.2)
    assert reconstruct.p95_share == pytest.approx(0.47)  # 0.2 + 0.9 · (0.5 - 0.2)
    assert reconstruct.share == pytest.approx(1.7 / 12.0)


def test_metadata_of_a_call_gives_the_rows_of_its_record():
    assert stages_of(to_dict(query())) == stage_table([query()])


def test_totals_of_two_halves_merge_to_those_of_the_whole():
    records = [query(), query(num_queries=1, shots_total=0), query(num_subexperiments=3)]
    whole = QueryTotals.of(records)
    assert QueryTotals.of(records[:1]) + QueryTotals.of(records[1:]) == whole
    assert (whole.records, whole.queries, whole.subexperiments) == (3, 161, 1603)
    assert whole.shots == 2 * 800 * 1024
    assert QueryTotals.of([]) == QueryTotals()


def test_kinds_in_one_file_are_told_apart(tmp_path: Path):
    with RecordWriter(tmp_path / "both.jsonl") as log:
        for record in (query(query_id="a"), STEPS[0], query(query_id="b"), STEPS[1]):
            log.write(record)
    assert [r.query_id for r in load_queries(tmp_path / "both.jsonl")] == ["a", "b"]
    assert load_training(tmp_path / "both.jsonl") == STEPS[:2]


def test_a_file_without_the_kind_wanted_is_refused(tmp_path: Path):
    with RecordWriter(tmp_path / "training.jsonl") as log:
        log.write(STEPS[0])
    with pytest.raises(RecordError, match=r"training\.jsonl` holds no query record"):
        load_queries(tmp_path / "training.jsonl")
    with pytest.raises(RecordError, match="cannot read"):
        load_queries(tmp_path / "absent.jsonl")


def test_figure_draws_what_the_records_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn = []
    write = charts.write_picture
    monkeypatch.setattr(
        charts, "write_picture", lambda chart, *paths: (drawn.append(chart), write(chart, *paths))
    )
    training_figure(STEPS, [query()], tmp_path / "run.png", "iris, 1 cut")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert [path.name for path in tmp_path.iterdir()] == ["run.png"]
    picture = drawn[0]
    assert picture["title"]["text"] == "iris, 1 cut"
    curves, stages = picture["hconcat"]
    assert [panel["title"] for panel in curves["vconcat"]] == [
        *("Training loss, mean over the training part", "Accuracy")
    ]
    assert stages["title"] == "Estimator time by stage, 1 s in all"
    panels = [*curves["vconcat"], stages]
    loss, scores, shares = (panel["data"]["values"] for panel in panels)
    assert [row["y"] for row in loss] == [record.loss for record in STEPS]
    assert [row["y"] for row in scores if row["key"] == "training samples"] == pytest.approx(
        [50, 60, 70, 80]
    )
    assert [row["length"] for row in shares] == pytest.approx([0.1, 0.2, 0.5, 0.2])


def test_figure_that_cannot_be_saved_leaves_nothing(tmp_path: Path):
    (tmp_path / "run.png").mkdir()
    with pytest.raises(OSError, match=r"run\.png"):
        training_figure(STEPS, [query()], tmp_path / "run.png", "iris")
    assert [path.name for path in tmp_path.iterdir()] == ["run.png"]


def test_a_missing_library_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(MissingExtraError, match=r"distributed-estimator\[report\]"):
        training_figure(STEPS, [query()], tmp_path / "run.png", "iris")
    assert not list(tmp_path.iterdir())
