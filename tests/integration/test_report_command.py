"""`pgml-tune report` against a database where much has happened."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import Connect
from monitored import watch

from pgml_tune import cli


@pytest.fixture(scope="module")
def dsn(connect_shared: Connect) -> Iterator[str]:
    """Where a role that may operate finds the database."""
    db = connect_shared()
    watch(db)
    db.execute("CREATE DATABASE without_extension")
    yield f"host={db.info.host} port={db.info.port} dbname={db.info.dbname} user=olga"
    db.execute("DROP DATABASE without_extension")


def report(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.main, ["report", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def test_a_role_that_may_operate_writes_a_page_with_all_that_has_happened(dsn: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    status, output = report("--dsn", dsn, "--output", str(page))
    assert status == 0, output
    written = page.read_text(encoding="utf-8")
    titles = re.findall(r"<h2>(.*?)</h2>", written)
    assert titles == [
        "Rollouts", "Calls and errors", "Latency", "Quality", "Cache", "Drift", "Jobs", "History",
    ]  # fmt: skip
    assert "minilm@v1-int8-block" in written
    assert "1 call of minilm@v1 never ended: the session died." in written
    assert "&lt;b&gt;too slow&lt;/b&gt; &amp; &quot;more&quot;" in written
    assert "1 failed" in written and "<h3>minilm: embed</h3>" in written


def test_the_page_goes_to_the_standard_output_if_asked(dsn: str) -> None:
    status, page = report("--dsn", dsn, "--output", "-", "--since", "1 hour")
    assert status == 0
    assert page.startswith("<!doctype html>") and page.endswith("</html>\n")


def test_the_page_is_of_the_time_that_was_asked_for(dsn: str) -> None:
    def calls(since: str) -> int:
        _, page = report("--dsn", dsn, "--output", "-", "--since", since)
        found = re.search(r"<dd>([\d,]+)</dd><dt>calls</dt>", page)
        assert found is not None
        return int(found[1].replace(",", ""))

    assert 0 < calls("1 hour") < calls("12 hours") < calls("30 days")


@pytest.mark.parametrize(("since", "state"), [("yesterday", "22007"), ("-1 day", "22023"), ("0", "22023")])
def test_a_time_that_is_none_is_refused_and_nothing_is_written(
    dsn: str, tmp_path: Path, since: str, state: str
) -> None:
    page = tmp_path / "page.html"
    status, output = report("--dsn", dsn, "--output", str(page), "--since", since)
    assert status == 1
    assert f"({state})" in output
    assert not page.exists()


def test_a_role_that_may_only_use_models_is_refused(dsn: str) -> None:
    status, output = report("--dsn", dsn.replace("olga", "alice"), "--output", "-")
    assert (status, "(42501)" in output) == (1, True)


def test_a_database_without_the_extension_is_refused(dsn: str) -> None:
    status, output = report("--dsn", f"{dsn} dbname=without_extension", "--output", "-")
    assert (status, "(55000)" in output, "CREATE EXTENSION" in output) == (1, True, True)


def test_a_file_that_cannot_be_written_is_an_error(dsn: str, tmp_path: Path) -> None:
    status, output = report("--dsn", dsn, "--output", str(tmp_path / "missing" / "page.html"))
    assert (status, output.startswith("Error:")) == (1, True)


def test_the_report_writes_nothing_into_the_database(dsn: str) -> None:
    assert report("--dsn", f"{dsn} options='-c default_transaction_read_only=on'", "--output", "-")[0] == 0
