"""Every setting, declared once.

Rows of `pgml_tune.setting` hold limits and policies and are written by `configure()`. Paths come from the
root-owned file. Session preferences (`SET pgml_tune.cache = ...`) can be set by anybody, so they choose nothing
that matters to others.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pgml_tune.errors import InvalidArgument, NotReady, ObjectNotFound

CONFIG_FILE = Path("/etc/pgml_tune.toml")
_NUMBERS = {False: re.compile(r"-?[0-9]{1,18}\Z"), True: re.compile(r"[0-9]{1,3}(\.[0-9]{1,4})?\Z")}  # by is_fraction
_MAX_TEXT = 10_000
CONFIG_VARIABLE = "PGML_TUNE_CONFIG"  # of the postmaster's environment, never of a client's


@dataclass(frozen=True, slots=True)
class Setting:
    """One row that `configure()` may write: a number in a range, one of a few words, or a text of a form."""

    name: str
    default: str
    trades: str
    minimum: int = 0
    maximum: int = 0
    choices: tuple[str, ...] = ()
    is_fraction: bool = False  # of at most four decimals; else an integer
    pattern: str = ""  # of a text that is valid as a whole
    form: str = ""  # what the pattern means, in words
    is_for_superusers: bool = False  # it decides what runs with the rights of others, or whom the server talks to

    @property
    def range(self) -> str:
        if self.choices:
            return " | ".join(self.choices)
        if self.pattern:
            return self.form
        return f"{self.minimum} .. {self.maximum}" + (", four decimals" if self.is_fraction else "")

    def check(self, value: str) -> str:
        """`value` itself if it is allowed, else 22023."""
        if self.choices:
            if value in self.choices:
                return value
        elif self.pattern:
            if len(value) <= _MAX_TEXT and re.fullmatch(self.pattern, value):
                return value
        elif _NUMBERS[self.is_fraction].match(value):
            number = self._number(value)
            if self.minimum <= number <= self.maximum:
                return str(number).removesuffix(".0")
        raise InvalidArgument(
            f'invalid value for setting "{self.name}"',
            detail=f"Valid are: {self.range}.",
            hint=f"SELECT configure('{self.name}', '{self.default}')",
        )

    def parse(self, value: str) -> float | str:
        """The value as a number or a word, if it is allowed, else 22023."""
        checked = self.check(value)
        return checked if self.choices or self.pattern else self._number(checked)

    def _number(self, value: str) -> float:
        return float(value) if self.is_fraction else int(value)


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("threads", "1", "Cores that one backend uses for one call, against cores left to others.", 1, 256),
        Setting("max_input_bytes", "1048576", "Longest text accepted, against memory a text may take.", 1, 4194304),
        Setting("max_batch_texts", "50000", "Texts accepted in one array, against memory and time.", 1, 1000000),
        Setting(
            "long_input",
            "truncate",
            "A text beyond the model's length: cut and counted, or refused.",
            choices=("truncate", "error"),
        ),
        Setting(
            "session_cache_bytes",
            "16777216",
            "Memory of each session for vectors of repeated texts, against computing them again.",
            0,
            4294967296,
        ),
        Setting("table_cache", "on", "Vectors kept for all sessions of a role, against disk.", choices=("on", "off")),
        Setting(
            "table_cache_bytes", "1073741824", "Disk for those vectors, against computing them again.", 8388608, 1 << 46
        ),
        Setting(
            "cache_scope",
            "role",
            "Whether roles see each other's cached vectors, and so by timing what others have asked.",
            choices=("role", "shared"),
        ),
        Setting(
            "auto_start_worker",
            "on",
            "A CALL that finds no worker starts one that ends when no job is left, or leaves the job to wait.",
            choices=("on", "off"),
        ),
        Setting(
            "maintain_minutes",
            "5",
            "How often a worker that stays calls maintain(), against work for that; 0: never.",
            0,
            10080,
        ),
        Setting("jobs_running", "1", "Jobs that a worker runs at the same time, against cores for each.", 1, 64),
        Setting("jobs_queued", "100", "Jobs of one role that may wait or run.", 1, 100000),
        Setting("job_rows", "1000000", "Rows that a query of a job may return, against disk and time.", 1, 100000000),
        Setting(
            "job_row_bytes", "268435456", "Bytes that those rows may take, against disk and memory.", 1024, 1 << 40
        ),
        Setting("job_seconds", "86400", "Time that a job may take, against work that never ends.", 1, 8640000),
        Setting(
            "job_memory_bytes",
            "0",
            "Memory that the processes of a job may hold; 0 means three quarters of the machine's.",
            0,
            1 << 46,
        ),
        Setting("job_disk_bytes", "21474836480", "Disk that a running job may use.", 1 << 20, 1 << 46),
        Setting("job_threads", "0", "Cores that a job uses; 0 means all.", 0, 1024),
        Setting(
            "rollback_window_hours",
            "168",
            "How long vectors that a rollout has left are kept up to date for a rollback, against disk and writes.",
            0,
            87600,
        ),
        Setting("job_keep_days", "30", "How long ended jobs and their logs are kept.", 1, 36500),
        Setting(
            "log_sample",
            "0.1",
            "Share of the calls that are logged while no rollout runs, against time for each; failed calls always are,"
            " and those to text_to_sql().",
            0,
            1,
            is_fraction=True,
        ),
        Setting(
            "log_text",
            "off",
            "Texts of users in the log of calls, so that it can be read and trained from, or none.",
            choices=("off", "on"),
        ),
        Setting(
            "log_sketch",
            "off",
            "32 numbers of each computed text in the log, from which drift of the texts shows, or none.",
            choices=("off", "on"),
        ),
        Setting(
            "candidate_failures",
            "3",
            "Failures in a row after which a session no longer tries the candidate of a rollout.",
            1,
            1000,
        ),
        Setting("log_keep_days", "30", "How long logged calls are kept, against disk.", 1, 36500),
        Setting(
            "log_spool_bytes",
            "268435456",
            "Disk for calls that wait for maintain(); beyond it the oldest are lost, and counted.",
            16777216,
            1 << 40,
        ),
        Setting("sql_attempts", "4", "Candidates that text_to_sql() checks before it gives up, against time.", 1, 20),
        Setting(
            "sql_values",
            "on",
            "Frequent values, as far as a role may see statistics of them, in what a model reads to write SQL.",
            choices=("on", "off"),
        ),
        Setting(
            "sql_example_similarity",
            "0.75",
            "Cosine from which on a question in the same words is a verified example asked again; 1: never.",
            0,
            1,
            is_fraction=True,
        ),
        Setting("sql_max_rows", "1000", "Rows that ask() returns, against memory and time.", 1, 1000000),
        Setting("sql_max_bytes", "1048576", "Bytes that those rows may have as JSON.", 1024, 268435456),
        Setting("sql_seconds", "5", "Time for checking and running one query.", 1, 3600),
        Setting(
            "sql_max_cost",
            "10000000",
            "What the planner may think a query costs; one that costs more is refused without being run.",
            1,
            10**15,
        ),
        Setting(
            "sql_memory_bytes",
            "67108864",
            "Memory that a query of a model may take beside what the session has.",
            16777216,
            1 << 40,
        ),
        Setting(
            "sql_functions",
            "",
            "Functions beside PostgreSQL's own that SQL of a model may call, as whoever asks.",
            pattern=r"\s*(\w+\.\w+\([\w\s.,\[\]\"]*\)\s*(,\s*\w+\.\w+\([\w\s.,\[\]\"]*\)\s*)*)?",
            form="schema.name(types), schema.name(types), ...",
            is_for_superusers=True,
        ),
        Setting(
            "sql_endpoint",
            "",
            "The server that is asked where a model is one of a server's, and so sees questions and what their"
            " askers may read.",
            pattern=r"((http://(localhost|127(\.\d{1,3}){3}|\[::1\])|https://[A-Za-z0-9.-]+)(:\d{1,5})?(/[\w.-]+)*"
            r"/completions)?",
            form="http://127.0.0.1:PORT/v1/chat/completions or /v1/completions; https:// of another machine; or empty",
            is_for_superusers=True,
        ),
        Setting(
            "sql_foreign_tables",
            "off",
            "Whether SQL of a model may read foreign tables, where what it does on another server is not checked.",
            choices=("off", "on"),
            is_for_superusers=True,
        ),
        Setting(
            "ask_privileged",
            "off",
            "Whether ask() runs for superusers, readers of server files, who passes row security, and after SET ROLE.",
            choices=("off", "on"),
            is_for_superusers=True,
        ),
        Setting("max_wait_ms", "100", "Longest that the worker waits for more texts, for fuller batches.", 0, 10000),
        Setting("batch_size", "32", "Most texts that the worker computes at once, against time of others.", 1, 4096),
        Setting(
            "batch_tokens",
            "8192",
            "Most tokens that the worker computes at once, the padding included, against time of those before.",
            64,
            1048576,
        ),
        Setting(
            "queue_requests",
            "1000",
            "Requests that may wait at the worker; one more is refused at once instead of late.",
            1,
            1000000,
        ),
        Setting(
            "serve_memory_bytes",
            "0",
            "Memory for the models that the worker holds; 0 means half of the machine's.",
            0,
            1 << 46,
        ),
        Setting("serve_threads", "0", "Cores that the worker computes with; 0 means all.", 0, 1024),
        Setting(
            "in_process_max_sessions",
            "32",
            "Sessions of the server that may hold models of their own, against memory.",
            1,
            100000,
        ),
    )
}
MAX_UNIT_BYTES = 1000  # of the preference pgml_tune.unit
CACHE_CHOICES = ("on", "session", "off")  # of the preference pgml_tune.cache
RUNTIME_CHOICES = ("auto", "in_process", "worker")  # of the preference pgml_tune.runtime
_PREFERENCES = ("cache", "runtime", "unit")  # of a session, which are no settings


def setting_named(name: str) -> Setting:
    """The declaration of a setting."""
    setting = SETTINGS.get(name)
    if setting is None:
        raise ObjectNotFound(
            "there is no such setting",
            detail=f"Settings are: {', '.join(sorted(SETTINGS))}.",
            hint=f"SET pgml_tune.{name} = ..." if name in _PREFERENCES else "",
        )
    return setting


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings in force, parsed."""

    threads: int
    max_input_bytes: int
    max_batch_texts: int
    long_input: str
    session_cache_bytes: int
    table_cache: str
    table_cache_bytes: int
    cache_scope: str
    auto_start_worker: str
    maintain_minutes: int
    jobs_running: int
    jobs_queued: int
    job_rows: int
    job_row_bytes: int
    job_seconds: int
    job_memory_bytes: int
    job_disk_bytes: int
    job_threads: int
    rollback_window_hours: int
    job_keep_days: int
    log_sample: float
    log_text: str
    log_sketch: str
    candidate_failures: int
    log_keep_days: int
    log_spool_bytes: int
    sql_attempts: int
    sql_values: str
    sql_example_similarity: float
    sql_max_rows: int
    sql_max_bytes: int
    sql_seconds: int
    sql_max_cost: int
    sql_memory_bytes: int
    sql_functions: str
    sql_foreign_tables: str
    sql_endpoint: str
    ask_privileged: str
    max_wait_ms: int
    batch_size: int
    batch_tokens: int
    queue_requests: int
    serve_memory_bytes: int
    serve_threads: int
    in_process_max_sessions: int

    @classmethod
    def from_rows(cls, rows: Mapping[str, str]) -> Limits:
        # Read with every statement: only what differs from the defaults is parsed.
        changed = {name: SETTINGS[name].parse(value) for name, value in rows.items() if name in SETTINGS}
        return cls(**(_DEFAULTS | changed))  # type: ignore[arg-type]


_DEFAULTS = {name: setting.parse(setting.default) for name, setting in SETTINGS.items()}


def parse_cache_preference(text: str | None) -> str:
    """The value of `pgml_tune.cache`; unset reads as NULL or '' and means on."""
    return _chosen("pgml_tune.cache", text, CACHE_CHOICES)


def parse_runtime_preference(text: str | None) -> str:
    """The value of `pgml_tune.runtime`; unset reads as NULL or '' and means auto."""
    return _chosen("pgml_tune.runtime", text, RUNTIME_CHOICES)


def _chosen(parameter: str, text: str | None, choices: tuple[str, ...]) -> str:
    if not text:
        return choices[0]
    if text not in choices:
        raise InvalidArgument(
            f'invalid value for parameter "{parameter}"',
            detail=f"Valid are: {', '.join(choices)}.",
            hint=f"RESET {parameter}",
        )
    return text


def parse_unit_preference(text: str | None) -> str | None:
    """The value of `pgml_tune.unit`; unset reads as NULL or '' and means that the input is the unit."""
    if not text:
        return None
    if len(text) > MAX_UNIT_BYTES or len(text.encode()) > MAX_UNIT_BYTES:
        raise InvalidArgument(
            'invalid value for parameter "pgml_tune.unit"',
            detail=f"It has more than {MAX_UNIT_BYTES} bytes.",
            hint="RESET pgml_tune.unit",
        )
    return text


class Loopback(NamedTuple):
    """A port of this machine that no other machine can reach."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Paths:
    """Where files and sockets are; chosen by root, never by SQL."""

    model_root: Path
    spool_dir: Path
    import_dirs: tuple[Path, ...]
    config_file: Path | None
    socket: Path | None = None  # of the worker; None: below the spool folder
    socket_group: str = ""  # whose members may connect, too
    listen: Loopback | None = None  # where the worker listens beside its socket
    connect: Loopback | None = None  # where sessions reach the worker; None: at its socket
    listen_secret: Path | None = None  # what both ends of such a connection know; None: beside the socket

    @property
    def serve_socket(self) -> Path:
        """Where the worker listens that serves models."""
        return self.socket or self.spool_dir / "serve" / "worker.sock"

    @property
    def secret_file(self) -> Path:
        """What who connects to a port has to know."""
        return self.listen_secret or self.serve_socket.parent / "listen_secret"


_KEYS = {
    "model_root", "spool_dir", "import_dirs", "socket", "socket_group", "listen", "connect", "listen_secret"
}  # fmt: skip
_LOOPBACK = re.compile(r"(127(?:\.(?:0|[1-9]\d{0,2})){3}|\[::1\]):([1-9]\d{0,4})", re.ASCII)
DEFAULT_PATHS = Paths(Path("/var/lib/pgml_tune/models"), Path("/var/lib/pgml_tune/spool"), (), None)


def read_paths(environment: Mapping[str, str] = os.environ) -> Paths:
    """The paths of the root-owned file, or the defaults where it is missing."""
    named = environment.get(CONFIG_VARIABLE)
    file = Path(named) if named else CONFIG_FILE
    try:
        with file.open("rb") as stream:
            status = os.fstat(stream.fileno())
            if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise NotReady(f'configuration file "{file}" can be changed by others', hint=f"chmod go-w {file}")
            values = tomllib.load(stream)
    except FileNotFoundError:
        if named:
            raise NotReady(f'configuration file "{file}" does not exist') from None
        return DEFAULT_PATHS
    except (OSError, ValueError, RecursionError) as error:
        raise NotReady(f'configuration file "{file}" cannot be read', detail=f"{error}.") from None
    unknown = set(values) - _KEYS
    if unknown:
        raise NotReady(f'configuration file "{file}" has unknown keys', detail=f"{', '.join(sorted(unknown))}.")
    folders = values.get("import_dirs", [])
    if not isinstance(folders, list):
        raise NotReady(f'"import_dirs" in configuration file "{file}" is not a list of folders')
    group = values.get("socket_group", "")
    if not isinstance(group, str) or "\0" in group:
        raise NotReady(f'"socket_group" in configuration file "{file}" is not the name of a group')
    return Paths(
        _folder(file, "model_root", values.get("model_root", str(DEFAULT_PATHS.model_root))),
        _folder(file, "spool_dir", values.get("spool_dir", str(DEFAULT_PATHS.spool_dir))),
        tuple(_folder(file, "import_dirs", folder) for folder in folders),
        file,
        _folder(file, "socket", values["socket"]) if "socket" in values else None,
        group,
        _loopback(file, "listen", values["listen"]) if "listen" in values else None,
        _loopback(file, "connect", values["connect"]) if "connect" in values else None,
        _folder(file, "listen_secret", values["listen_secret"]) if "listen_secret" in values else None,
    )


def _folder(file: Path, key: str, value: object) -> Path:
    if isinstance(value, str) and value.startswith("/") and "\0" not in value:
        return Path(value)
    raise NotReady(f'"{key}" in configuration file "{file}" is not an absolute path')


def _loopback(file: Path, key: str, value: object) -> Loopback:
    # No names: what one means is decided elsewhere.
    found = _LOOPBACK.fullmatch(value) if isinstance(value, str) else None
    if found is not None and int(found[2]) < 1 << 16 and all(int(part) < 256 for part in re.findall(r"\d+", found[1])):
        return Loopback(found[1].strip("[]"), int(found[2]))
    raise NotReady(
        f'"{key}" in configuration file "{file}" is not a port of this machine alone',
        detail="Valid are 127.0.0.1:PORT and [::1]:PORT, for what goes over it is not encrypted.",
    )
