"""What packagers and PGXN do with the repository."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

CHECKOUT = Path(__file__).parents[2]
PG_CONFIG = os.environ.get("PG_CONFIG", "pg_config")
VERSION = json.loads((CHECKOUT / "META.json").read_text())["version"]


def run(*command: str, **environment: str) -> str:
    """Runs a command in the checkout and returns what it printed."""
    git = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    result = subprocess.run(
        command,
        cwd=CHECKOUT,
        env=inherited | git | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def make(*arguments: str) -> str:
    return run("make", f"PG_CONFIG={PG_CONFIG}", *arguments)


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def extension_folder() -> Iterator[Path]:
    """The server's folder of extensions; the files of this checkout are put back afterwards."""
    folder = Path(run(PG_CONFIG, "--sharedir").strip()) / "extension"
    if not os.access(folder, os.W_OK):
        pytest.skip(f"{folder} is not writable: installing there needs root")
    yield folder
    make("install-sql")


@pytest.fixture
def database(extension_folder: Path) -> Iterator[str]:
    name = f"packaging_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield name
    with psycopg.connect(dbname="postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name}")


def test_pgxn_install_gives_an_extension_that_can_be_created(
    tmp_path: Path, extension_folder: Path, database: str
) -> None:
    if not (CHECKOUT / ".git").exists():
        pytest.skip("the archive is made from a git checkout")
    archive = tmp_path / f"pgml_tune-{VERSION}.zip"
    make("dist", f"DIST={archive}")
    make("uninstall", "SQL_ONLY=yes")
    assert not list(extension_folder.glob("pgml_tune*"))

    # Only the SQL files go to the system: a real installation on this machine stays as it is.
    run(
        *(str(Path(sys.executable).parent / "pgxn"), "install", "--yes", "--make", "make"),
        *("--pg_config", PG_CONFIG, str(archive)),
        PYTHON_PREFIX=str(tmp_path / "prefix"),
        PYTHON_SITE=str(tmp_path / "site"),
        SYSCONFDIR=str(tmp_path / "etc"),
        MODEL_ROOT=str(tmp_path / "state/models"),
    )

    assert (tmp_path / f"prefix/{VERSION}/package/pgml_tune/__init__.py").exists()
    with psycopg.connect(dbname=database, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION pgml_tune CASCADE")
        rows = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'pgml_tune'").fetchall()
    assert rows == [(VERSION,)]


def test_install_puts_everything_below_destdir_and_uninstall_takes_it_back(tmp_path: Path) -> None:
    make("install", f"DESTDIR={tmp_path}")

    installed = files_below(tmp_path)
    outside_package = {name for name in installed if "/package/" not in name}
    assert {Path(name).name for name in outside_package} == {
        "pgml_tune.control",
        "pgml_tune.pth",
        "pgml_tune.toml",
        "pgml-tune",
        "pgml-tune-worker.service",
        *(path.name for path in (CHECKOUT / "extension").glob("*.sql")),
    }
    assert f"opt/pgml_tune/{VERSION}/package/pgml_tune/__init__.py" in installed
    assert (tmp_path / "var/lib/pgml_tune/models").is_dir()
    (pth,) = tmp_path.rglob("pgml_tune.pth")
    assert pth.read_text() == f"/opt/pgml_tune/{VERSION}/package\n"

    make("uninstall", f"DESTDIR={tmp_path}")
    assert files_below(tmp_path) == set()


def test_install_keeps_a_configuration_file_that_is_there(tmp_path: Path) -> None:
    config = tmp_path / "etc/pgml_tune.toml"
    config.parent.mkdir()
    config.write_text('model_root = "/srv/models"\n')

    make("install", f"DESTDIR={tmp_path}")
    make("uninstall", f"DESTDIR={tmp_path}")

    assert config.read_text() == 'model_root = "/srv/models"\n'


def test_install_honours_prefix_and_model_root(tmp_path: Path) -> None:
    make("install", f"DESTDIR={tmp_path}", "PYTHON_PREFIX=/usr/lib/pgml", "MODEL_ROOT=/srv/pgml/models")

    assert (tmp_path / f"usr/lib/pgml/{VERSION}/package/pgml_tune/__init__.py").exists()
    assert 'model_root = "/srv/pgml/models"' in (tmp_path / "etc/pgml_tune.toml").read_text()
    assert (tmp_path / "srv/pgml/models").is_dir()


def test_meta_json_names_the_files_and_version_of_the_control_file() -> None:
    meta = json.loads((CHECKOUT / "META.json").read_text())

    assert f"default_version = '{meta['version']}'" in (CHECKOUT / "pgml_tune.control").read_text()
    assert (CHECKOUT / meta["provides"]["pgml_tune"]["file"]).exists()
    assert (CHECKOUT / meta["provides"]["pgml_tune"]["docfile"]).exists()
