"""Programs of the server, run as the user that the server runs as."""

import os
import pwd
import subprocess
from collections.abc import Mapping
from pathlib import Path


def program(name: str) -> str:
    """The path of a program of the server under test."""
    folder = subprocess.check_output([os.environ.get("PG_CONFIG", "pg_config"), "--bindir"], text=True).strip()
    return str(Path(folder) / name)


def server_user(data_folder: Path) -> pwd.struct_passwd:
    """The owner of the cluster; PostgreSQL refuses to run as root."""
    return pwd.getpwuid(data_folder.stat().st_uid)


def run(
    *command: str, user: str | None = None, environment: Mapping[str, str] | None = None, folder: Path = Path("/")
) -> str:
    """What a command prints that is run in `folder`; it must succeed. `user` matters only to root."""
    result = subprocess.run(
        command,
        cwd=folder,
        env=dict(environment) if environment is not None else None,
        user=user if os.getuid() == 0 else None,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def server_environment(data_folder: Path) -> dict[str, str]:
    """The environment that the server was started with: it names the package and the configuration."""
    postmaster = (data_folder / "postmaster.pid").read_text().split("\n")[0]
    entries = Path(f"/proc/{postmaster}/environ").read_text().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)
