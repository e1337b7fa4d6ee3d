"""Records as others read them: their JSON Schema, data frames, SQL, and what a header says."""

from __future__ import annotations

import gzip
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import polars as pl
import pytest
from helpers import Done, entangled, refused
from record_examples import STEP

from distributed_estimator import DistributedEstimator, EstimatorOptions
from distributed_estimator.analysis.escape import csv_text, markdown
from distributed_estimator.analysis.frames import (
    query_records,
    take_inventory,
    to_pandas,
    to_polars,
)
from distributed_estimator.backends.fleet import Fleet, homogeneous
from distributed_estimator.cli.main import main
from distributed_estimator.errors import InputError, MissingExtraError, RecordError
from distributed_estimator.records import (
    KINDS,
    DeviceRecord,
    Header,
    QueryRecord,
    RecordWriter,
    TrainingRecord,
    decode,
    encode,
    environment,
    json_schema,
    read_records,
)

VALIDATOR = jsonschema.Draft202012Validator(json_schema())
ROOT = Path(__file__).parents[1]
REPRODUCE = (
    'python -c "import json; from distributed_estimator.records import json_schema; '
    'print(json.dumps(json_schema(), indent=2, ensure_ascii=False))" > docs/records.schema.json'
)
HOSTILE = "\x1b[31m[red]|<b>é\x00\ud800"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with records of every kind, as runs leave them behind."""
    folder = tmp_path_factory.mktemp("run")
    options = EstimatorOptions(shots=64, seed=1)
    devices = homogeneous(2, seconds_per_job=1e-3, seconds_per_shot=0.0)
    with DistributedEstimator(
        "AABB",
        backend=Fleet(devices, log=folder / "devices.jsonl"),
        workers=2,
        options=options,
        log=RecordWriter(folder / "queries.jsonl", config_hash="c0ffee", attempt=2),
        trace=folder / "tasks.jsonl",
    ) as estimator:
        for _ in range(2):
            estimator.run([(entangled(4, 1), "ZZZZ")]).result()
    trained = tmp_path_factory.mktemp("trained") / "run"
    small = "--samples 10 --test-samples 10 --cuts 1 --shots 16 --maxiter 1"
    assert main(["train", "iris", *small.split(), "--out", str(trained)]) == 0
    shutil.copy(trained / "training.jsonl", folder)
    return folder


def step(number: int, metrics: dict[str, float], **changes: Any) -> TrainingRecord:
    return replace(STEP, **{"step": number, "epoch": number, "metrics": metrics} | changes)


def one(folder: Path, kind: type[Any]) -> Any:
    return next(r for r in read_records(*folder.glob("*.jsonl")) if isinstance(r, kind))


def write(path: Path, *records: Any) -> Path:
    with RecordWriter(path) as log:
        for record in records:
            log.write(record)
    return path


def study(run: Path, folder: Path) -> Path:
    for name in ("aaa", "bbb"):
        shutil.copytree(run, folder / "runs" / name)
        described = {"schema_version": 1, "run_id": name, "experiment": f"{name}-experiment"}
        (folder / "runs" / name / "run.json").write_text(json.dumps(described))
    return folder


# --- the header -------------------------------------------------------------------------------


def test_a_header_says_what_made_the_records() -> None:
    header = Header.current(config_hash="c0ffee", attempt=3)
    assert (header.config_hash, header.attempt) == ("c0ffee", 3)
    assert header.threads["OMP_NUM_THREADS"] == os.environ.get("OMP_NUM_THREADS")
    assert header.threads["usable_cpus"] == str(len(os.sched_getaffinity(0)))
    assert decode(encode(header)) == header


def test_writers_that_are_told_of_an_attempt_write_a_header_each(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for attempt in (1, 2):
        with RecordWriter(path, config_hash="c0ffee", attempt=attempt) as log:
            log.write(step(attempt, {}))
            log.close()
            log.write(step(attempt, {}))
    write(path, step(3, {}))
    found = [getattr(r, "attempt", "step") for r in read_records(path)]
    assert found == [1, "step", "step", 2, "step", "step", "step"]


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("processor\t: 0\nmodel name\t: A 1 @ 2: GHz\nmodel name\t: other\n", "A 1 @ 2: GHz"),
        ("model name\t:\n", None),
        ("CPU part\t: 0xd0c\n", None),
    ],
)
def test_the_processor_says_its_model(tmp_path: Path, text: str, model: str | None) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert environment.processor_model(tmp_path / "cpuinfo") == model


def checkout(root: Path, name: str = "distributed-estimator") -> Path:
    package = root / "src" / "distributed_estimator"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (root / "pyproject.toml").write_text(f'[project]\nname = "{name}"\n')
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "one")
    return package


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    variables = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    return subprocess.check_output(command, text=True, timeout=60, env=variables).strip()


def test_a_checkout_says_its_commit_and_whether_it_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = checkout(tmp_path)
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as in a hook of another repository
    source = environment.source_checkout.__wrapped__
    head = git(tmp_path, "rev-parse", "HEAD")
    assert source(package) == environment.Checkout(head, False)
    (tmp_path / "notes.txt").write_text("beside the sources")
    assert source(package) == environment.Checkout(head, False)
    (package / "new.py").write_text("")
    assert source(package) == environment.Checkout(head, True)
    (package / "new.py").unlink()
    (package / "__init__.py").write_text("changed = True")
    assert source(package) == environment.Checkout(head, True)


def test_what_is_no_checkout_of_the_package_has_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing, source = environment.Checkout(), environment.source_checkout.__wrapped__
    assert source(checkout(tmp_path / "other", "another-package")) == nothing
    installed = checkout(tmp_path / "mine").parents[1] / "lib/site-packages/distributed_estimator"
    installed.mkdir(parents=True)
    assert source(installed) == nothing
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    assert source(tmp_path / "mine/src/distributed_estimator") == nothing


def test_importing_the_package_asks_git_nothing() -> None:
    program = (
        "import subprocess, sys\n"
        "subprocess.Popen = None\n"
        "import distributed_estimator.records, distributed_estimator.analysis.frames\n"
        "assert not {'pandas', 'polars', 'duckdb'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


# --- the schema -------------------------------------------------------------------------------


def test_the_committed_schema_is_that_of_the_dataclasses() -> None:
    committed = json.loads((ROOT / "docs" / "records.schema.json").read_text("utf-8"))
    assert committed == json_schema(), f"make it anew: {REPRODUCE}"
    jsonschema.Draft202012Validator.check_schema(committed)


def test_records_of_every_kind_are_valid(run: Path) -> None:
    kinds = set()
    for path in run.glob("*.jsonl"):
        for line in path.read_text().splitlines():
            VALIDATOR.validate(json.loads(line))
            kinds.add(json.loads(line)["kind"])
    assert kinds == set(KINDS)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("query", {"pipeline": "other"}),
        ("query", {"quantity": "slope"}),
        ("query", {"num_queries": -1}),
        ("query", {"num_cuts": "2"}),
        ("query", {"seed": 1.5}),
        ("query", {"plan_cached": None}),
        ("query", {"schema_version": 2}),
        ("query", {"circuit": {"num_qubits": 4}}),
        ("query", {"value": None}),
        ("task", {"status": "gone"}),
        ("task", {"rows": ["0"]}),
        ("training", {"metrics": {"loss": "low"}}),
        ("device", {"kind": "machine"}),
        ("header", {"versions": {"numpy": 2}}),
    ],
)
def test_what_readers_refuse_is_not_valid(run: Path, kind: str, changes: dict[str, Any]) -> None:
    document = json.loads(encode(one(run, KINDS[kind])))
    assert (is_valid(document), is_read(document)) == (True, True)
    document |= changes
    assert (is_valid(document), is_read(document)) == (False, False)


def test_every_required_field_is_required_by_readers_too(run: Path) -> None:
    for kind in KINDS.values():
        document = json.loads(encode(one(run, kind)))
        for name in document:
            shorter = {key: value for key, value in document.items() if key != name}
            assert is_valid(shorter) == is_read(shorter)


def is_valid(document: dict[str, Any]) -> bool:
    return bool(VALIDATOR.is_valid(document))


def is_read(document: dict[str, Any]) -> bool:
    try:
        return bool(decode(json.dumps(document).encode()))
    except RecordError:
        return False


# --- frames -----------------------------------------------------------------------------------


def test_pandas_has_a_row_for_each_record(run: Path) -> None:
    frame = to_pandas(run)
    found = [r for r in read_records(run / "queries.jsonl") if isinstance(r, QueryRecord)]
    assert list(frame.query_id) == [record.query_id for record in found]
    assert list(frame.circuit_num_qubits) == [4, 4]
    assert list(frame.value_mean) == [record.value.mean for record in found]
    assert frame.value_values[0] == list(found[0].value.values or ())
    assert frame.started_at[0] == pd.Timestamp(found[0].started_at)
    assert str(frame.started_at.dtype) == "datetime64[us, UTC]"
    kinds = {name: str(frame[name].dtype) for name in frame}
    expected = {"num_cuts": "int64", "shots": "Int64", "t_total": "float64", "pool": "string"}
    assert kinds.items() >= (expected | {"plan_cached": "bool", "precision": "float64"}).items()
    assert frame.experiment.isna().all()


def test_polars_has_the_same(run: Path) -> None:
    frame = to_polars(run / "queries.jsonl")
    assert frame.columns == list(to_pandas(run).columns)
    assert frame["t_total"].to_list() == to_pandas(run).t_total.to_list()
    expected = {
        "started_at": pl.Datetime("us", "UTC"),
        "shots": pl.Int64(),
        "value_values": pl.List(pl.Float64()),
        "plan_cached": pl.Boolean(),
        "experiment": pl.String(),
    }
    assert frame.schema.items() >= expected.items()
    assert frame["started_at"][0].tzinfo is not None


def test_each_metric_is_a_column_and_null_is_missing(tmp_path: Path) -> None:
    nan = float("nan")
    path = write(tmp_path / "a.jsonl", step(0, {"a": 0.5}), step(1, {"a": nan, "b": 0.25}))
    frame = to_polars(path, "training")
    assert frame["metrics_a"].to_list() == [0.5, None]
    assert frame["metrics_b"].to_list() == [None, 0.25]
    assert to_pandas(path, "training").metrics_a.isna().tolist() == [False, True]
    assert query_records(path, "select avg(metrics_a) from training").rows == [(0.5,)]


@pytest.mark.parametrize("read", [to_pandas, to_polars])
@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"training"}))
def test_a_kind_without_records_is_an_empty_frame_with_its_columns(
    run: Path, tmp_path: Path, kind: str, read: Callable[[Path, str], Any]
) -> None:
    (tmp_path / "log.jsonl").write_bytes(encode(step(0, {})) + b"\n")
    empty, full = read(tmp_path, kind), read(run, kind)
    assert (len(empty), len(read(tmp_path, "training"))) == (0, 1)
    assert list(empty.columns) == list(full.columns)
    assert list(empty.dtypes) == list(full.dtypes)


def test_a_study_says_which_run_a_record_is_of(run: Path, tmp_path: Path) -> None:
    frame = to_pandas(study(run, tmp_path))
    assert list(frame.study_run_id) == ["aaa", "aaa", "bbb", "bbb"]
    assert set(frame.experiment) == {"aaa-experiment", "bbb-experiment"}
    assert set(frame.file) == {"runs/aaa/queries.jsonl", "runs/bbb/queries.jsonl"}
    alone = to_pandas(tmp_path / "runs/bbb/queries.jsonl")
    assert list(alone.study_run_id) == ["bbb", "bbb"]
    header = to_pandas(tmp_path, "header")
    assert set(frame.file) <= set(header.file)
    assert set(header.config_hash.dropna()) == {"c0ffee"}


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 2}', '{"schema_version": true}'])
def test_a_study_whose_run_is_not_described_is_refused(
    run: Path, tmp_path: Path, text: str
) -> None:
    (study(run, tmp_path) / "runs/bbb/run.json").write_text(text)
    with pytest.raises(RecordError, match=r"bbb.run\.json"):
        to_pandas(tmp_path)


def test_numbers_and_names_of_any_kind_fit(run: Path, tmp_path: Path) -> None:
    query, device = one(run, QueryRecord), one(run, DeviceRecord)
    names = {"a b": 1.0, "a.b": 2.0, "A_B": 3.0, HOSTILE: 4.0, "": 5.0}
    write(
        tmp_path / "log.jsonl",
        replace(query, num_terms=6**40, num_subexperiments=10**400, started_at="yesterday"),
        replace(query, pool=HOSTILE, started_at="2030-01-01T01:00:00+01:00"),
        replace(device, device=HOSTILE),
        step(0, names),
    )
    frames = {kind: to_polars(tmp_path, kind) for kind in ("query", "device", "training")}
    query_frame = frames["query"]
    assert query_frame["num_terms"].to_list()[0] == pytest.approx(6.0**40)
    assert query_frame["num_subexperiments"].to_list()[0] == float("inf")
    assert query_frame["started_at"].to_list() == [None, datetime(2030, 1, 1, tzinfo=UTC)]
    shown = HOSTILE.replace("\ud800", "?")
    assert query_frame["pool"][1] == frames["device"]["device"][0] == shown
    metrics = [name for name in frames["training"].columns if name.startswith("metrics_")]
    assert [frames["training"][name][0] for name in metrics] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert len({name.lower() for name in metrics}) == 5
    assert len(to_pandas(tmp_path)) == 2
    assert query_records(tmp_path, "select count(*) from training").rows == [(1,)]
    assert query_records(tmp_path, "select pool from query").rows[1] == (shown,)


def test_compressed_records_are_read_as_others(run: Path, tmp_path: Path) -> None:
    whole = (run / "queries.jsonl").read_bytes()
    path = tmp_path / "queries.jsonl.gz"
    path.write_bytes(gzip.compress(whole))
    assert list(read_records(path)) == list(read_records(run / "queries.jsonl"))
    assert to_polars(tmp_path).drop("file").equals(to_polars(run).drop("file"))
    for damaged in (path.read_bytes()[:-20], b"\x1f\x8b" + bytes(40), whole):
        path.write_bytes(damaged)
        with pytest.raises(RecordError, match=r"queries\.jsonl\.gz"):
            list(read_records(path))


def test_a_compressed_copy_beside_its_file_does_not_count(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "queries.jsonl", tmp_path)
    before = take_inventory(tmp_path)
    (tmp_path / "queries.jsonl.gz").write_bytes(
        gzip.compress((tmp_path / "queries.jsonl").read_bytes())
    )
    assert take_inventory(tmp_path) == before
    assert len(to_polars(tmp_path)) == before.counts["query"]


@pytest.mark.parametrize(
    ("read", "package"), [(to_pandas, "pandas"), (to_polars, "polars"), (query_records, "duckdb")]
)
def test_without_the_library_the_install_command_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path, str], Any], package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"`{package}`.*distributed-estimator\[analysis\]"):
        read(run, "query")


def test_what_holds_no_records_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="does not exist"):
        to_pandas(tmp_path / "nowhere")
    with pytest.raises(RecordError, match="holds no record files"):
        to_pandas(tmp_path)
    with pytest.raises(RecordError, match="kind is 'queries': use one of device, header"):
        to_pandas(run, "queries")


# --- SQL --------------------------------------------------------------------------------------


def test_sql_reads_every_kind(run: Path) -> None:
    for kind in KINDS:
        expected = sum(record.kind == kind for record in read_records(*run.glob("*.jsonl")))
        assert query_records(run, f"select count(*) from {kind}").rows == [(expected,)]
    answer = query_records(
        run,
        "select q.query_id, sum(t.subexperiments) = any_value(q.num_subexperiments) as whole "
        "from query q join task t using (run_id, query_id) group by 1",
    )
    assert answer.columns == ("query_id", "whole")
    assert [row[1] for row in answer.rows] == [True, True]


def test_sql_has_times_in_utc(run: Path) -> None:
    ((began,),) = query_records(run, "select min(started_at) from query").rows
    first = min(r.started_at for r in read_records(run / "queries.jsonl") if r.kind == "query")
    assert began.replace(tzinfo=UTC) == datetime.fromisoformat(first)
    # A process of its own, because a zone is read but once.
    command = [sys.executable, "-m", "distributed_estimator.cli.main", "records", str(run)]
    command += ["--json", "--sql", "select min(started_at) from query"]
    zone = os.environ | {"TZ": "Asia/Kolkata"}
    done = subprocess.run(command, env=zone, capture_output=True, check=True, timeout=120)
    assert json.loads(done.stdout)["rows"] == [[began.isoformat()]]


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_text('{file}')",
        "select * from '{file}'",
        "select * from glob('{folder}/*')",
        "copy (select 1) to '{folder}/new'",
        "copy query from '{file}'",
        "export database '{folder}/new'",
        "attach '{folder}/new'",
        "install httpfs",
        "load httpfs",
        "select * from 'https://example.org/a.csv'",
        "create secret s (type s3)",
        "set enable_external_access = true",
        "pragma profiling_output = '{folder}/new'",
        "select 1; copy (select 1) to '{folder}/new'",
        "explain analyze copy (select 1) to '{folder}/new'",
        "create table new as select 1",
        "delete from query",
        "with gone as (delete from query returning 1) select * from gone",
        "drop table query",
        "select * from local",
        "select getenv('HOME')",
    ],
)
def test_sql_has_nothing_but_the_records(
    run: Path, tmp_path: Path, dest: Callable[..., Done], sql: str
) -> None:
    local = pd.DataFrame({"secret": [1]})
    (tmp_path / "file.csv").write_text("secret\nsecret\n")
    text = sql.format(folder=tmp_path, file=tmp_path / "file.csv")
    with pytest.raises(InputError):
        query_records(run, text)
    assert "secret\n" not in refused(dest("records", run, "--sql", text))
    assert os.listdir(tmp_path) == ["file.csv"]
    assert len(local) == 1


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("selec 1", "Parser Error"),
        ("select * from queries", "Table with name queries does not exist"),
        ("select nothing from query", "nothing"),
        ("", "not one SELECT"),
        ("select 1; select 2", "not one SELECT"),
        ("select ?", "has parameters"),
        ("select '\ud800'", "surrogates"),
        ("select 'a'::int", "Could not convert string"),
        ("select now()", "::timestamp"),
        ("select to_days(2000000000)", "::varchar"),
        ("select " + "(" * 5000 + "1" + ")" * 5000, "Max expression depth"),
    ],
)
def test_bad_sql_ends_in_one_line(
    run: Path, dest: Callable[..., Done], sql: str, message: str
) -> None:
    assert message in refused(dest("records", run, "--sql", sql))


def test_what_the_documentation_says_works(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run, tmp_path / "runs" / "iris")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "records.md").read_text("utf-8")
    commands = [line for line in text.splitlines() if line.startswith("dest records ")]
    assert len(commands) == 5
    for command in commands:
        assert main(shlex.split(command)[1:]) == 0
    programs = [part.split("```")[0] for part in text.split("```python\n")[1:]]
    wanted = [p for p in programs if "frames" in p or "jsonschema" in p]
    assert len(wanted) == 2
    for program in wanted:
        exec(program, {})


# --- the command ------------------------------------------------------------------------------


def test_the_summary_says_what_there_is(run: Path, dest: Callable[..., Done]) -> None:
    code, out, err = dest("records", run, "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told == take_inventory(run).as_dict()
    assert told["files"] == 4
    assert (told["records"]["query"], told["records"]["training"], told["runs"]) == (2, 2, 2)
    assert told["first"] <= told["last"]
    assert told["versions"]["python"] == [".".join(map(str, sys.version_info[:3]))]
    assert "2 query" in dest("records", run)[1]
    of_file = json.loads(dest("records", run / "queries.jsonl", "--json")[1])
    assert (of_file["files"], set(of_file["records"])) == (1, {"header", "query"})


def test_rows_are_a_table_json_or_csv(tmp_path: Path, dest: Callable[..., Done]) -> None:
    write(tmp_path / "log.jsonl", step(0, {"a": 0.5}), step(1, {}))
    sql = "select step, metrics_a as accuracy, 'a,b' as text from training order by 1"
    rows = 'step,accuracy,text\n0,0.5,"a,b"\n1,,"a,b"\n'
    assert dest("records", tmp_path, "--sql", sql, "--csv") == (0, rows, "")
    code, out, _ = dest("records", tmp_path, "--sql", sql, "--json")
    assert code == 0
    assert json.loads(out) == {
        "columns": ["step", "accuracy", "text"],
        "rows": [[0, 0.5, "a,b"], [1, None, "a,b"]],
    }
    code, out, _ = dest("records", tmp_path, "--sql", sql)
    assert [line.split() for line in out.splitlines() if "a,b" in line] == [
        ["0", "0.5", "a,b"],
        ["1", "–", "a,b"],
    ]


def test_values_of_any_type_are_printed(run: Path, dest: Callable[..., Done]) -> None:
    sql = (
        "select 1.5::decimal(4,1) a, date '2030-01-02' b, time '10:00' c, interval 90 second d, "
        "{'x': [1, 2.5]} e, 'z'::blob f, 'nan'::double g, 2::hugeint ** 100 h, true i, 1 as a"
    )
    code, out, _ = dest("records", run, "--sql", sql, "--json")
    (row,) = json.loads(out)["rows"]
    assert row[:5] == [1.5, "2030-01-02", "10:00:00", 90.0, {"x": [1.0, 2.5]}]
    assert row[6:] == [None, 2.0**100, True, 1]
    for way in ([], ["--csv"]):
        assert dest("records", run, "--sql", sql, *way)[0] == 0
    code, out, _ = dest("records", run, "--sql", "select * from query")
    assert code == 0
    assert "circuit_num_qubits" in out
    assert "row 2" in out


def test_many_rows_are_cut_short_in_a_table_only(run: Path, dest: Callable[..., Done]) -> None:
    sql = "select range from range(1200)"
    _, out, err = dest("records", run, "--sql", sql)
    assert "999" in out
    assert "1000" not in out
    assert "200 more rows" in err
    assert len(dest("records", run, "--sql", sql, "--csv")[1].splitlines()) == 1201


def test_text_from_records_does_not_steer_the_terminal(
    run: Path, tmp_path: Path, dest: Callable[..., Done]
) -> None:
    query = replace(one(run, QueryRecord), pool=HOSTILE, run_id=HOSTILE)
    header = replace(Header.current(), processor=HOSTILE, versions={HOSTILE: HOSTILE})
    write(tmp_path / "log.jsonl", query, header)
    for arguments in ([], ["--sql", "select pool, run_id from query"]):
        code, out, _ = dest("records", tmp_path, *arguments)
        assert code == 0
        assert "[red]|<b>" in out
        assert not {"\x1b", "\x00"} & set(out)


def test_a_damaged_or_newer_file_is_named(
    run: Path, tmp_path: Path, dest: Callable[..., Done]
) -> None:
    good = write(tmp_path / "good.jsonl", step(0, {})).read_text()
    (tmp_path / "damaged.jsonl").write_text(good + '{"kind": \n' + good)
    newer = good.replace('"schema_version": 1', '"schema_version": 2')
    (tmp_path / "newer.jsonl").write_text(newer)
    code, out, err = dest("records", tmp_path, "--json")
    told = json.loads(out)
    assert code == 2
    assert told["records"]["training"] == 2
    damaged, newer = told["unreadable"]
    assert "damaged.jsonl, line 3" in damaged
    assert "install a newer" in newer
    assert err.startswith("dest: 2 files cannot be read")
    assert err.count("\n") == 1
    assert "damaged.jsonl, line 3" in refused(dest("records", tmp_path, "--sql", "select 1"))
    (tmp_path / "damaged.jsonl").unlink()
    assert "install a newer" in refused(dest("records", tmp_path, "--sql", "select 1"))


def test_bad_folders_and_options_end_in_one_line(
    run: Path, tmp_path: Path, dest: Callable[..., Done]
) -> None:
    sql = ("--sql", "select 1")
    assert "does not exist" in refused(dest("records", tmp_path / "nowhere"))
    assert "holds no record files" in refused(dest("records", tmp_path, *sql))
    assert "give `--sql TEXT` too" in refused(dest("records", run, "--csv"))
    assert "not both" in refused(dest("records", run, "--csv", "--json", *sql))


@pytest.mark.parametrize(
    ("text", "shown"),
    [("1. a", "1\\. a"), ("20)", "20\\)"), ("1.5 a", "1.5 a"), ("a 1. b", "a 1. b")],
)
def test_a_name_begins_no_list_of_markdown(text: str, shown: str) -> None:
    assert markdown(text) == shown


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "＝", "＋", "－", "＠", "﹦", "\ufeff="])
def test_a_name_begins_no_formula(sign: str) -> None:
    assert csv_text(f"{sign}1+1").startswith("'")
