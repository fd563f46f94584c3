"""What `doctor()` examines: each check yields one line, and a failed one says how to mend it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shlex
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from pgml_tune import __version__
from pgml_tune.db import Database, Session
from pgml_tune.engine.artifact import Artifact, bound_digest
from pgml_tune.engine.generator import ENDPOINT
from pgml_tune.engine.machine import fingerprint
from pgml_tune.engine.orphans import left_over
from pgml_tune.errors import ArtifactDamaged, TuneError
from pgml_tune.ipc import spool
from pgml_tune.ipc.addresses import worker_address
from pgml_tune.ipc.client import Client
from pgml_tune.ipc.place import is_served
from pgml_tune.records import Check, ModelReference
from pgml_tune.service import loaded
from pgml_tune.service.secret import FILE_NAME
from pgml_tune.settings import Limits, Paths
from pgml_tune.store import call_log, engine_choice, job, queue, registry, rollout
from pgml_tune.store.collection import collection_faults
from pgml_tune.store.server import ServerFacts, server_facts
from pgml_tune.store.setting import read_settings

PACKAGES = ("numpy", "onnxruntime", "tokenizers", "orjson", "ctranslate2", "sqlglot")
TRAINING = ("torch", "sentence_transformers", "transformers", "datasets", "accelerate", "peft", "onnx", "onnxscript")
FORBIDDEN = ("torch", "transformers", "sentence_transformers", "psycopg")
_LOW_DISK_BYTES = 1 << 30
_LONG_LAG_SECONDS = 600
_START_LISTENING = "Start pgml-tune worker, or restart it, with the same port as listen in its /etc/pgml_tune.toml."
_START_WORKER = "Start pgml-tune worker as the user of the server; one that runs finds a new database within a minute."


def examine(db: Session, read_paths: Callable[[], Paths]) -> list[Check]:
    """All checks, in the order in which one would mend them."""
    facts = server_facts(db)
    checks = [*_python(), *_packages(), *_server(facts), *_namesakes(facts)]
    try:
        paths = read_paths()
    except TuneError as error:
        return [*checks, Check("configuration file", "fail", f"{error.message}. {error.detail}".strip(), error.hint)]
    checks.append(Check("configuration file", "ok", str(paths.config_file or "none, the defaults are in force")))
    checks += [*_model_root(paths.model_root), *_spool(paths.spool_dir)]
    checks += _serving(paths)
    checks += _default_model(facts)
    endpoint = Limits.from_rows(read_settings(db)[1]).sql_endpoint
    for reference, digest in registry.all_versions(db):
        checks.append(_version(paths.model_root, reference, digest, endpoint))
    checks += _engines(db)
    return [*checks, *_collections(db), *_rollouts(db), *_log(db, paths.spool_dir), *_jobs(db), *_queues(db)]


def _serving(paths: Paths) -> Iterator[Check]:
    client = Client(worker_address(paths))
    told = loaded.status(client)
    client.close()
    if told is None and paths.connect is not None:
        detail = f"no worker answers at {paths.connect}: {loaded.why_silent(client)}"
        yield Check("serving", "warn", detail, _START_LISTENING)
    elif told is None and is_served(paths.serve_socket):
        detail, fix = "the process that serves models does not answer", "Look into the log of pgml-tune worker."
        yield Check("serving", "warn", detail, fix)
    elif told is None:
        yield Check("serving", "ok", "no worker serves models: each session loads its own")
    elif told["quarantined"]:
        stopped = ", ".join(digest[:12] for digest in told["quarantined"])
        fix = "Roll back to another version; to try again restart pgml-tune worker."
        yield Check("serving", "warn", f"not run any more after crashes: {stopped}", fix)
    else:
        yield Check("serving", "ok", f"{len(told['models'])} models in the worker")


def _engines(db: Database) -> Iterator[Check]:
    """Ways of running versions that do not count here: found on another machine, or for other libraries."""
    here = fingerprint()
    for choice in engine_choice.choices(db):
        name, arguments = f"engine of {choice.reference}", f"('{choice.reference.name}', '{choice.reference.version}')"
        if choice.machine == here:
            yield Check(name, "ok", f"the worker runs it by {choice.way['engine']} in {choice.way['precision']}")
        else:
            detail = f"runs by its own engine: another was chosen on ({choice.machine}), this is ({here})"
            yield Check(name, "warn", detail, f"CALL tune_engine{arguments}; or SELECT reset_engine{arguments}")


def _jobs(db: Database) -> Iterator[Check]:
    missing = [name for name in TRAINING if importlib.util.find_spec(name) is None]
    yield Check(
        "training libraries",
        "warn" if missing else "ok",
        f"not installed: {', '.join(missing)}; models can be used, but not trained" if missing else "installed",
        "make install-train" if missing else "",
    )
    facts = job.job_facts(db)
    starts = Limits.from_rows(read_settings(db)[1]).auto_start_worker == "on"
    served = "a worker runs" if facts.has_worker else "none runs; a CALL starts one" if starts else "none runs"
    is_stuck = facts.queued > 0 and not facts.has_worker
    yield Check(
        "worker",
        "warn" if is_stuck or not (facts.has_worker or starts) else "ok",
        f"{served}; jobs that wait: {facts.queued}, that run: {facts.running}",
        "" if facts.has_worker or (starts and not is_stuck) else "Start pgml-tune worker as the user of the server, or"
        " SELECT configure('auto_start_worker', 'on')",
    )


def _queues(db: Database) -> Iterator[Check]:
    lags = queue.lags(db)
    if not lags:
        return
    waiting = sum(lag.waiting for lag in lags)
    oldest = max(lag.seconds for lag in lags)
    given_up = sum(lag.given_up for lag in lags)
    is_served = queue.is_served(db)
    detail = f"{waiting} rows wait, the oldest for {oldest:.0f} s; {given_up} were given up"
    if not is_served:
        yield Check("queue", "warn", f"{detail}; no worker serves this database", _START_WORKER)
    elif given_up:
        yield Check("queue", "warn", detail, "SELECT * FROM pgml_tune.queue_failures; SELECT requeue_failed()")
    else:
        yield Check("queue", "warn" if oldest > _LONG_LAG_SECONDS else "ok", detail, "")


def _python() -> Iterator[Check]:
    found = f"Python {platform.python_version()}, package pgml_tune {__version__} in {Path(__file__).parents[1]}"
    supported = sys.version_info >= (3, 11)
    yield Check("python", "ok" if supported else "fail", found, "" if supported else "Use Python 3.11 or later.")
    loaded = [name for name in FORBIDDEN if name in sys.modules]
    yield Check(
        "backend imports",
        "fail" if loaded else "ok",
        f"loaded in this backend: {', '.join(loaded)}" if loaded else "no training library is loaded in this backend",
        "Reconnect, and do not import these from your own PL/Python functions." if loaded else "",
    )


def _packages() -> Iterator[Check]:
    for name in PACKAGES:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            yield Check(f"package {name}", "fail", f"{error}", "make install-deps")
            continue
        detail = f"{importlib.metadata.version(name)} from {Path(str(module.__file__)).parent}"
        yield Check(f"package {name}", "ok", detail)


def _server(facts: ServerFacts) -> Iterator[Check]:
    supported = 150000 <= facts.server_number < 190000
    yield Check(
        "postgresql",
        "ok" if supported else "warn",
        f"PostgreSQL {facts.server_version}",
        "" if supported else "Use PostgreSQL 15 to 18.",
    )
    same = facts.extension_version == __version__
    yield Check(
        "extension",
        "ok" if same else "fail",
        f"extension {facts.extension_version} in schema {facts.extension_schema}, package {__version__}",
        "" if same else f"ALTER EXTENSION pgml_tune UPDATE TO '{__version__}'",
    )
    vector = tuple(int(part) for part in facts.vector_version.split(".")[:3] if part.isdigit())
    status = "fail" if vector < (0, 7) else "warn" if vector < (0, 8, 4) else "ok"
    fix = {"ok": "", "warn": "Update pgvector to 0.8.4 or later: it mends builds and vacuums of HNSW indexes."}
    yield Check(
        "pgvector", status, f"pgvector {facts.vector_version}", fix.get(status, "Update pgvector to 0.7 or later.")
    )
    yield Check(
        "schema",
        "warn" if facts.schema_creators else "ok",
        f"others may create objects in schema {facts.extension_schema}: {facts.schema_creators}"
        if facts.schema_creators
        else f"nobody but its owner may create objects in schema {facts.extension_schema}",
        f"REVOKE CREATE ON SCHEMA {facts.extension_schema} FROM {facts.schema_creators}"
        if facts.schema_creators
        else "",
    )


def _namesakes(facts: ServerFacts) -> Iterator[Check]:
    if facts.namesakes:
        detail = f"not of the extension, but named as its functions are: {facts.namesakes}"
        yield Check("namesakes", "fail", detail, f"DROP ROUTINE {facts.namesakes}")
    else:
        yield Check("namesakes", "ok", "no other function beside those of the extension has the name of one")


def _model_root(model_root: Path) -> Iterator[Check]:
    if not os.access(model_root, os.R_OK | os.X_OK):
        yield Check("model root", "fail", f"{model_root} is missing or cannot be read", _make_folder(model_root, "755"))
        return
    if model_root.stat().st_mode & stat.S_IWOTH:
        yield Check("model root", "fail", f"{model_root} can be written by everybody", f"chmod o-w {model_root}")
        return
    yield from _left_over(model_root)
    free = shutil.disk_usage(model_root).free
    detail = f"{model_root}, {free / (1 << 30):.1f} GiB free"
    if not os.access(model_root, os.W_OK):
        yield Check("model root", "warn", f"{detail}, not writable: models cannot be registered here", "")
    elif free < _LOW_DISK_BYTES:
        yield Check("model root", "warn", detail, "Free some space: a model takes from 20 MB to several GB.")
    else:
        yield Check("model root", "ok", detail)


def _left_over(model_root: Path) -> Iterator[Check]:
    folders = left_over(model_root)
    if folders:
        yield Check(
            "left-overs",
            "warn",
            f"{len(folders)} folders in {model_root} of imports that ended more than a day ago",
            f"rm -rf {' '.join(shlex.quote(str(folder)) for folder in folders)}",
        )


def _spool(spool_dir: Path) -> Iterator[Check]:
    if not os.access(spool_dir, os.R_OK | os.W_OK | os.X_OK):
        yield Check("spool", "fail", f"{spool_dir} is missing or not writable", _make_folder(spool_dir, "700"))
        return
    secret = spool_dir / FILE_NAME
    if secret.exists() and stat.S_IMODE(secret.stat().st_mode) & 0o077:
        yield Check("spool", "fail", f"{secret} can be read by others", f"chmod 600 {secret}")
        return
    yield Check("spool", "ok", str(spool_dir))


def _make_folder(folder: Path, mode: str) -> str:
    return f"sudo install -d -o postgres -g postgres -m {mode} {folder}"


def _default_model(facts: ServerFacts) -> Iterator[Check]:
    if facts.default_model is None:
        yield Check("default model", "warn", "calls without a model fail", "pgml-tune import SOURCE --name NAME")
    else:
        yield Check("default model", "ok", facts.default_model)


def _collections(db: Database) -> Iterator[Check]:
    faults = collection_faults(db)
    for name, fault, fix in faults:
        yield Check(f"collection {name}", "warn", fault, fix)
    if not faults:
        yield Check("collections", "ok", "every collection is in line with its table")


def _rollouts(db: Database) -> Iterator[Check]:
    for model, fault, fix in rollout.faults(db):
        yield Check(f"rollout of {model}", "warn", fault, fix)


def _log(db: Session, spool_dir: Path) -> Iterator[Check]:
    facts = call_log.log_facts(db)
    limit = Limits.from_rows(read_settings(db)[1]).log_spool_bytes
    place = db.place()
    waiting = sum(file.size for file in spool.files(spool.database_folder(spool_dir, place.database_id), place.node))
    # Beyond half of it maintain() keeps nothing that it has taken in.
    is_neglected = waiting > limit * 3 // 4 or (waiting and facts.is_late)
    lost = f"lost so far: {facts.dropped_bytes} bytes, {facts.refused_lines} lines"
    late = "; nobody has taken calls in for a day" if facts.is_late else ""
    yield Check(
        "log of calls",
        "warn" if is_neglected else "ok",
        f"{waiting / 1e6:.1f} MB in the spool, which may hold {limit / 1e6:.0f}; {lost}{late}",
        "CALL maintain()" if is_neglected else "",
    )


def _version(model_root: Path, reference: ModelReference, digest: str, endpoint: str) -> Check:
    name = f"model {reference}"
    try:
        artifact = Artifact(model_root, digest)
        artifact.verify(force=True)
        config = artifact.config()
    except TuneError as error:
        return Check(name, "fail", f"{error.message}. {error.detail}".strip(), error.hint)
    file = shlex.quote(str(model_root / "names" / str(reference)))
    fix = f"rm -rf {file} && echo {digest} > {file}"
    try:
        bound = bound_digest(model_root, reference)
    except ArtifactDamaged as error:
        return Check(name, "fail", f"embed_pinned() fails: {error.message}", fix)
    if bound != digest:
        found = "nothing" if bound is None else "another artifact"
        return Check(name, "fail", f"embed_pinned() finds {found} under this name", fix)
    if config.engine == ENDPOINT and not endpoint:
        fix = "SELECT configure('sql_endpoint', 'http://127.0.0.1:8000/v1/chat/completions')"
        return Check(name, "warn", "it is a model of a server, and the setting sql_endpoint names none", fix)
    return Check(name, "ok", f"{artifact.size_bytes / 1e6:.1f} MB, all checksums match")
