"""The examples of docs/clients print what they say, in an environment of their own and as an owner of the database."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "clients"
DATABASE = "pgml_tune_clients"
OWNER = "developer"


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """What an example needs to connect to a new database, whose owner may make collections."""
    with psycopg.connect(autocommit=True) as server:
        if not server.execute("SELECT FROM pg_roles WHERE rolname = %s", (OWNER,)).rowcount:
            server.execute(f"CREATE ROLE {OWNER} LOGIN")
        server.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
        try:
            with psycopg.connect(dbname=DATABASE, autocommit=True) as prepared:
                prepared.execute("SET client_min_messages = warning")
                prepared.execute("CREATE EXTENSION pgml_tune CASCADE")
                prepared.execute("SELECT register_model('minilm', 'minilm@v1', 'embedding', 'v1')")
                prepared.execute("SELECT grant_operate(%s::regrole)", (OWNER,))
            kept = {name: os.environ[name] for name in ("PATH", "PGHOST", "PGPORT") if name in os.environ}
            yield kept | {"PGDATABASE": DATABASE, "PGUSER": OWNER}
        finally:
            server.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")


def promised(example: Path) -> list[str]:
    """The lines that the end of an example says it prints."""
    _, found, lines = re.sub(r"^(#|--) ?", "", example.read_text(), flags=re.MULTILINE).partition("It prints:\n")
    assert found
    return lines.splitlines()


def run(command: list[Any], environment: dict[str, str]) -> tuple[list[str], str]:
    """The lines that a command prints, and its errors and notices."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda example: example.stem)
def test_an_example_in_python_prints_what_it_says(example: Path, environment: dict[str, str]) -> None:
    python = Path(os.environ["PGML_TUNE_CLIENTS"]) / "bin" / "python"
    printed, _ = run([python, "-W", "error::DeprecationWarning:__main__", example], environment)
    assert printed == promised(example)


@pytest.mark.parametrize("how", [[], ["--single-transaction"]], ids=["autocommit", "transaction"])
def test_the_example_of_psql_prints_what_it_says(how: list[str], environment: dict[str, str]) -> None:
    example = EXAMPLES / "psql.sql"
    bin_folder = subprocess.check_output([os.environ["PG_CONFIG"], "--bindir"], text=True).strip()
    psql = [Path(bin_folder) / "psql", "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"]
    printed, notices = run([*psql, *how, f"--file={example}"], environment)
    assert printed == promised(example)
    assert ("NOTICE" in notices) or not how


def test_every_example_is_run_and_every_client_pinned() -> None:
    assert {example.name for example in EXAMPLES.iterdir()} == {
        "django_orm.py", "langchain_pgvectorstore.py", "psql.sql", "sqlalchemy_orm.py"
    }  # fmt: skip
    pins = (EXAMPLES.parents[1] / "python" / "clients.txt").read_text()
    for client in ("Django", "SQLAlchemy", "langchain-postgres", "pgvector", "psycopg"):
        assert re.search(rf"^{client}==", pins, re.MULTILINE)


def test_the_page_shows_what_the_examples_do() -> None:
    _, _, section = (EXAMPLES.parent / "search.md").read_text().partition("\n## Clients\n")
    shown = re.findall(r"^```(?:sql|python)\n(.*?)^```$", section.partition("\n## ")[0], re.MULTILINE | re.DOTALL)
    assert len(shown) == 10
    examples = [example.read_text() for example in EXAMPLES.iterdir()]
    for part in shown:
        assert any(part in example for example in examples), part
