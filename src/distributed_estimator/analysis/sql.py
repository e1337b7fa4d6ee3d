"""Records as tables of an SQL database in memory, which reads them and nothing else."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from ..checks import require
from ..errors import InputError
from .frames import read_tables

# A query is not trusted: it sees no file, no network, no extension and no variable of ours.
_SETTINGS = {
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
    "allow_persistent_secrets": False,
    "temp_directory": "",
}


@dataclass(frozen=True)
class Answer:
    """The result of a query: names of columns, and rows of Python values."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def query_records(path: str | os.PathLike[str], sql: str) -> Answer:
    """Runs an SQL query (DuckDB's) on the records of a file or folder.

    There are the tables `query`, `training`, `task`, `device` and `header`, with the columns that
    `analysis.frames.to_pandas` describes. Times are timestamps in UTC without a zone.

    Args:
        path: A record file, or a folder of a run or of a study.
        sql: One SELECT statement.

    Raises:
        MissingExtraError: DuckDB or pyarrow is not installed.
        RecordError: Nothing can be read at the path, or a file is damaged or of a newer schema.
        InputError: The statement is not one SELECT, or DuckDB refuses it.
    """
    duckdb = require("duckdb", "analysis", "SQL on records")
    with duckdb.connect(":memory:", config=_SETTINGS) as database:
        # First, so that a typing error does not wait for records to be read.
        statement = _parsed(duckdb, database, sql)
        # Before the records, whose times the zone of this process would shift otherwise.
        database.execute("SET TimeZone = 'UTC'")
        for name, table in read_tables(path).items():
            database.register("arrow", table)
            # With a time zone, DuckDB could not hand times to Python without another package.
            columns = "* REPLACE (started_at::TIMESTAMP AS started_at)" if name == "query" else "*"
            database.execute(f'CREATE TABLE "{name}" AS SELECT {columns} FROM arrow')
            database.unregister("arrow")
        database.execute("SET lock_configuration = true")
        database.execute("BEGIN TRANSACTION READ ONLY")
        try:
            database.execute(statement)
            for name, kind, *_ in database.description:
                if "WITH TIME ZONE" in str(kind):
                    raise InputError(
                        f"column `{name}` is a {kind}: select it as `…::timestamp`, in UTC"
                    )
            return Answer(tuple(column[0] for column in database.description), database.fetchall())
        except (duckdb.Error, RuntimeError) as error:
            if "Query interrupted" in str(error):  # in 2.0 a plain RuntimeError
                raise KeyboardInterrupt from error
            raise _refused(error) from error
        except InputError:
            raise
        except (OverflowError, ValueError) as error:
            raise InputError(
                f"a value cannot be handed over ({error}): cast it, such as `…::varchar`"
            ) from error


def _parsed(duckdb: Any, database: Any, sql: str) -> Any:
    try:
        sql.encode("utf-8")
        statements = database.extract_statements(sql)
    except (duckdb.Error, RuntimeError, UnicodeEncodeError) as error:
        raise _refused(error) from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise InputError("the SQL is not one SELECT statement: records can only be read")
    if statements[0].named_parameters:
        raise InputError("the SQL has parameters, and no values for them: write the values out")
    return statements[0]


def _refused(error: Exception) -> InputError:
    """DuckDB's message without what it draws below it: the statement, or where Python was."""
    lines = str(error).partition("\n\nLINE ")[0].splitlines()
    return InputError(f"the SQL cannot be run: {' '.join(lines[:2])}")
