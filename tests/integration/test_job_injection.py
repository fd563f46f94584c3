"""100 hostile strings in every argument of every job: none is run, as SQL, by a shell or as a path."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, wait_until
from conftest import Connect
from job_workers import Installation, workers_of
from test_injection import CATALOGS, HOSTILE, db_with_canary

__all__ = ["db_with_canary"]  # a fixture

# {} stands for a file that a command would make.
SHELL = [
    "$(touch {})", "`touch {}`", "; touch {};", "| touch {}", "&& touch {}", "\ntouch {}\n",
    "' ; touch {} #", '"; touch {} #',
    "--help", "--model-root=/", "-c", "-m os", "@{}", "x\ttouch {}", "${{IFS}}touch${{IFS}}{}", "$(echo x > {})",
    "<(touch {})", "x' || touch {} || '", "%00; touch {}", "() {{ :; }}; touch {}",
    "__import__('os').system('touch {}')",
    "{{{{7*7}}}}", "{{x.__class__}}", "!!python/object/apply:os.system ['touch {}']", "file://{}",
    "http://localhost/{}",
    "-----BEGIN", "\\\\host\\share", "con", "nul", "%2e%2e%2f", "....//....//",
]  # fmt: skip
PATHS = [
    "/", "/etc", "/etc/passwd", "/proc/self/environ", "/proc/self/fd/0", "/dev/zero", "/dev/stdin", "/tmp", "/root",
    ".", "..", "../..", "../../../../etc", "./../x", "~", "~root", "//", "/etc/../etc", "names", "checkpoints",
    "../models", "../spool", "import/../../models", "x/../../../etc", "org/model/../../..", "a" * 4000, "..\\..\\x",
    "/var/lib/../../etc", "\u2215etc", "/etc\n", "/etc/passwd#", "jobs/../..", "models/names", "/sys", "/run",
]  # fmt: skip
HOSTILE_STRINGS = [*HOSTILE, *SHELL, *PATHS]
ANSWERS = set(
    "22023 42703 42704 42710 42P01 42P11 42601 42804 42809 42501 25006 0A000 55000 22P02 54000 42883 42725".split()
)
# What the server's own parser says of a query that is none.
SYNTAX = set("22025 22P05 42602 3F000 42P18 42702 22012 42846 42P10 42622 42939 22021 22P06 54001 53400".split())
PAIRS = "SELECT a, b FROM pair"


def calls(text: str) -> list[tuple[str, tuple[object, ...]]]:
    """A string as each argument of each procedure, and in each option that is a text."""
    named = ("loss", "device", "precision", "description", "new_version", "seed", text)
    option = [json.dumps({name: text}) for name in named]
    student = json.dumps({"new_model": text})
    return [
        ("CALL import_model(%s, '/nothere')", (text,)),
        ("CALL import_model('fresh', %s)", (text,)),
        ("CALL import_model('fresh', '/nothere', %s)", (text,)),
        ("CALL import_model('fresh', '/nothere', version => %s)", (text,)),
        ("CALL finetune_sbert(%s, %s)", (text, PAIRS)),
        ("CALL finetune_sbert('minilm', %s)", (text,)),
        ("CALL finetune_sbert('minilm', %s, %s)", (PAIRS, text)),
        ("CALL finetune_sbert('minilm', %s, eval_query => %s)", (PAIRS, text)),
        *(("CALL finetune_sbert('minilm', %s, options => %s)", (PAIRS, value)) for value in option),
        ("CALL finetune_classifier('minilm', 'SELECT a, id %% 2 FROM pair', %s)", (text,)),
        ("CALL finetune_text_to_sql(%s, %s)", (text, PAIRS)),
        ("CALL finetune_text_to_sql('fresh', %s)", (text,)),
        ("CALL finetune_text_to_sql('fresh', %s, %s)", (PAIRS, text)),
        ("CALL distill_model('minilm', %s, 'SELECT a FROM pair')", (text,)),
        ("CALL distill_model('minilm', 'layers:1', 'SELECT a FROM pair', options => %s)", (student,)),
        ("CALL quantize_model('minilm', %s)", (text,)),
        ("CALL quantize_model('minilm', 'int8_static', %s)", (text,)),
        ("CALL export_onnx('minilm', %s)", (json.dumps({"optimize": text}),)),
        ("CALL export_tensorrt('minilm', %s)", (text,)),
        ("CALL evaluate_model('minilm', %s)", (text,)),
        ("CALL evaluate_model('minilm', %s, ARRAY[%s])", (PAIRS, text)),
        ("SELECT model_card(%s, %s)", (text, text)),
        ("SELECT * FROM classify('a', %s)", (text,)),
    ]  # fmt: skip


@pytest.fixture
def canary_file(server_home: Path) -> Iterator[Path]:
    """A file that is there as soon as a command has run."""
    file = server_home / "import" / "touched"
    yield file
    assert not file.exists()


@pytest.fixture
def olga(db_with_canary: psycopg.Connection[Any], connect: Connect) -> psycopg.Connection[Any]:
    """An operator, who may not read the table of secrets."""
    db = db_with_canary
    db.execute("SELECT configure('auto_start_worker', 'off'), configure('jobs_queued', '100000')")
    db.execute(
        "CREATE TABLE pair AS SELECT g AS id, 'text ' || g AS a, 'other ' || g AS b FROM generate_series(1, 12) AS g"
    )
    db.execute("CREATE TABLE secret AS SELECT 'secret' AS a, 'secret' AS b")
    db.execute("GRANT SELECT ON pair TO olga")
    return connect("olga")


def test_there_are_100_of_them() -> None:
    assert len(set(HOSTILE_STRINGS)) >= 100


def test_hostile_string_in_any_argument_runs_nothing(
    db_with_canary: psycopg.Connection[Any], olga: psycopg.Connection[Any], canary_file: Path
) -> None:
    before = fetch_value(db_with_canary, CATALOGS)
    for hostile in HOSTILE_STRINGS:
        for sql, values in calls(hostile.replace("{}", str(canary_file))):
            try:
                olga.execute(sql, values)
            except psycopg.Error as error:
                assert error.sqlstate in ANSWERS | SYNTAX, (sql, values, error)
    assert fetch_value(db_with_canary, CATALOGS) == before
    rows = fetch_value(db_with_canary, "SELECT coalesce(string_agg(lines, ''), '') FROM pgml_tune.job_rows")
    assert "secret" not in rows


def test_hostile_source_is_no_command_and_no_way_out_of_the_import_folders(
    db: psycopg.Connection[Any], server_home: Path, canary_file: Path
) -> None:
    db.execute("SELECT configure('auto_start_worker', 'off'), configure('jobs_queued', '100000')")
    db.execute("SELECT configure('jobs_running', '2')")
    for number, hostile in enumerate(HOSTILE_STRINGS[:: max(1, len(HOSTILE_STRINGS) // 25)] + PATHS[:15]):
        try:
            db.execute("CALL import_model(%s, %s)", (f"hostile{number}", hostile.replace("{}", str(canary_file))))
        except psycopg.Error as error:
            assert error.sqlstate == "22023", (hostile, error)
    queued = fetch_value(db, "SELECT count(*) FROM pgml_tune.job")
    assert queued >= 20
    versions = fetch_value(db, "SELECT count(*) FROM pgml_tune.model_version")
    stored = sorted(os.listdir(server_home / "models"))
    with workers_of(Installation(server_home), db) as workers:
        workers.serve()
        wait_until(lambda: fetch_value(db, "SELECT count(*) FROM pgml_tune.job WHERE ended_at IS NULL") == 0, 180)
    ends = db.execute("SELECT DISTINCT state::text, sqlstate FROM pgml_tune.job").fetchall()
    assert {state for state, _ in ends} == {"failed"}
    assert {sqlstate for _, sqlstate in ends} <= {"22023", "42501", "42704", "55000"}, ends
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.model_version") == versions
    assert sorted(os.listdir(server_home / "models")) == stored
