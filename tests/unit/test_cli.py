"""The command line, without a server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pgml_tune import cli
from pgml_tune.errors import NameTaken


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.main, list(arguments))
    return result.exit_code, result.output


@pytest.mark.parametrize("arguments", [["--help"], ["import", "--help"], ["doctor", "-h"]])
def test_help_describes_every_command(arguments: list[str]) -> None:
    status, output = run(*arguments)
    assert status == 0
    assert output.startswith("Usage:")


def test_help_of_import_names_its_options() -> None:
    _, output = run("import", "--help")
    assert all(option in output for option in ("--name", "--task", "--version", "--quantize", "--dsn"))


def test_import_refuses_a_bad_name_before_anything_else(tmp_path: Path) -> None:
    status, output = run("import", str(tmp_path), "--name", "No Name")
    assert status == 1
    assert "(22023)" in output


def test_a_server_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    status, output = run("doctor", "--dsn", f"host={tmp_path} dbname=x")
    assert status == 1
    assert output.startswith("ERROR:")


def test_errors_are_printed_as_psql_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(cli.ReportedError) as caught, cli._reported():
        raise NameTaken("name taken", detail="Why.", hint="SELECT 1")
    caught.value.show()
    assert capsys.readouterr().err == "ERROR:  name taken (42710)\nDETAIL:  Why.\nHINT:  SELECT 1\n"


def test_the_error_of_a_job_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = tmp_path / "pgml_tune.toml"
    configuration.write_text(f'model_root = "{tmp_path / "models"}"\n')
    configuration.chmod(0o600)
    monkeypatch.setenv("PGML_TUNE_CONFIG", str(configuration))
    with pytest.raises(cli.ReportedError) as caught:
        list(cli.run_job(["import", str(tmp_path / "no model")], verbose=False))
    assert "(42704)" in caught.value.lines[0]


def test_a_job_that_dies_is_an_error() -> None:
    with pytest.raises(cli.ReportedError):
        list(cli.run_job(["no such job"], verbose=False))


def test_the_command_line_loads_no_training_library() -> None:
    program = "import sys, pgml_tune.cli; sys.exit('torch' in sys.modules or 'pgml_tune.jobs' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
