"""Artifacts: immutable folders of model files below the model root, named by their digest.

    <model_root>/<sha256 of manifest.json>/manifest.json   sha256 and size of each file
                                           config.json     ArtifactConfig
                                           model.onnx, model.onnx.data (its weights), tokenizer.json
                                           model.plan instead of model.onnx where the engine is TensorRT
                                           model.bin, ct2_config.json and vocabularies instead where it is
                                           CTranslate2; perhaps lexicon.json
                                           config.json alone where a server runs the model
    <model_root>/names/<name>@<version>                     the digest that this name means on this machine, for ever
    <model_root>/verified/<digest>                          the file identities under which the hashes were last checked
    <model_root>/checkpoints/<files_sha256>/                what training starts from: see checkpoint.py
    <model_root>/plans/                                     what building for a GPU keeps for the next time
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pgml_tune.engine.files import explained, hash_file, identity, open_plain, read_plain, sync, written_aside
from pgml_tune.errors import ArtifactDamaged, NameTaken, NotReady
from pgml_tune.records import ArtifactConfig, ModelReference, is_digest

GRAPH, WEIGHTS, PLAN = "model.onnx", "model.onnx.data", "model.plan"
CT2_MODEL, CT2_CONFIG = "model.bin", "ct2_config.json"  # CTranslate2 calls the second config.json, as we do our own
LEXICON = "lexicon.json"  # what questions call the values of the database
VOCABULARIES = (  # of an encoder and a decoder that share one, of two that do not, of a decoder alone
    {"shared_vocabulary.json"}, {"source_vocabulary.json", "target_vocabulary.json"}, {"vocabulary.json"},
)  # fmt: skip
_EXTRAS: tuple[set[str], ...] = (set(), {LEXICON})
REQUIRED_FILES = frozenset({"config.json", "tokenizer.json"})
FILE_SETS = (
    *(REQUIRED_FILES | network for network in ({GRAPH}, {GRAPH, WEIGHTS}, {PLAN})),
    *(REQUIRED_FILES | {CT2_MODEL, CT2_CONFIG} | words | more for words in VOCABULARIES for more in _EXTRAS),
    frozenset({"config.json"}),
)
ALLOWED_FILES = frozenset().union(*FILE_SETS)
PLANS = "plans"  # of GPUs, with the timings of their kernels: a cache, may be removed at any time
BUILDING = ".building-"  # begins the name of a folder that is not an artifact yet
_MAX_NAME_BYTES = 100


class Artifact:
    """An artifact on disk, opened by digest."""

    def __init__(self, model_root: Path, digest: str) -> None:
        self.digest = digest
        self.folder = model_root / digest
        self._verified = model_root / "verified" / digest
        if not is_digest(digest) or not self.folder.is_dir():
            raise NotReady(
                f'the files of artifact "{digest[:12]}" are not on this machine',
                detail=f'There is no folder of that digest below "{model_root}".',
                hint="Copy the model root from the machine where the model was imported, then SELECT * FROM doctor().",
            )
        manifest = read_plain(self.folder / "manifest.json")
        if hashlib.sha256(manifest).hexdigest() != digest:
            raise self._damaged("manifest.json")
        self.files = _listed_files(self._parse("manifest.json", manifest))
        if set(self.files) not in FILE_SETS:
            raise self._damaged("manifest.json", "does not list the files of an artifact")

    @property
    def size_bytes(self) -> int:
        return sum(entry["size"] for entry in self.files.values())

    def config(self) -> ArtifactConfig:
        """What the artifact says of itself."""
        content = read_plain(self.folder / "config.json")
        if hashlib.sha256(content).hexdigest() != self.files["config.json"]["sha256"]:
            raise self._damaged("config.json")
        return ArtifactConfig.from_json(self._parse("config.json", content))

    def path(self, name: str) -> Path:
        return self.folder / name

    def verify(self, *, force: bool = False) -> None:
        """Check every file against the manifest; files unchanged since the last check are not hashed again."""
        identities = {}
        for name in self.files:
            os.close(open_plain(self.folder / name))
            identities[name] = identity(self.folder / name)
        if not force and identities == self._last_verified():
            return
        for name, entry in self.files.items():
            if hash_file(self.folder / name) != (entry["sha256"], entry["size"]):
                raise self._damaged(name)
        # Not being able to remember costs the next session a hash; it is no error.
        with contextlib.suppress(OSError):
            self._verified.parent.mkdir(mode=0o755, exist_ok=True)
            with written_aside(self._verified.parent, json.dumps(identities).encode()) as file:
                file.rename(self._verified)

    def _last_verified(self) -> dict[str, list[int]] | None:
        try:
            recorded: dict[str, list[int]] = json.loads(read_plain(self._verified))
        except (ArtifactDamaged, ValueError, RecursionError):
            return None
        return recorded

    def _parse(self, name: str, content: bytes) -> dict[str, Any]:
        try:
            values = json.loads(content)
        except (ValueError, RecursionError):
            raise self._damaged(name, "is not JSON") from None
        if type(values) is not dict:
            raise self._damaged(name, "is not a JSON object")
        return values

    def _damaged(self, name: str, reason: str = "does not match its checksum") -> ArtifactDamaged:
        return ArtifactDamaged(
            f'file "{name}" of artifact "{self.digest[:12]}" {reason}',
            detail=f'It lies in "{self.folder}".',
            hint="Import the model again, or restore the folder from a copy.",
        )


def _listed_files(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The files that a manifest lists; none where an entry does not have the form of one."""
    files = manifest.get("files")
    if type(files) is not dict:
        return {}
    for entry in files.values():
        if type(entry) is not dict or set(entry) != {"sha256", "size"}:
            return {}
        if type(entry["sha256"]) is not str or type(entry["size"]) is not int or entry["size"] < 0:
            return {}
    return files


@contextlib.contextmanager
def new_artifact(model_root: Path, label: str = "") -> Iterator[Path]:
    """A temporary folder below the model root, removed afterwards; fill it, then `publish` it.

    The label in its name says which job works there, so that what a killed one leaves can be told.
    """
    prefix = f"{BUILDING}{label}-" if label else BUILDING
    with explained(model_root):
        model_root.mkdir(parents=True, exist_ok=True)
        building = tempfile.TemporaryDirectory(dir=model_root, prefix=prefix, ignore_cleanup_errors=True)
    with building as folder:
        yield Path(folder)


def publish(model_root: Path, folder: Path) -> Artifact:
    """Make a filled folder an artifact: manifest written, all synced, renamed to its digest.

    The same content published twice is one artifact.
    """
    with explained(model_root):
        files = {}
        for path in sorted(folder.iterdir()):
            if path.name not in ALLOWED_FILES:
                raise ArtifactDamaged(f'an artifact may not hold a file "{path.name}"')
            sha256, size = hash_file(path)
            files[path.name] = {"sha256": sha256, "size": size}
            path.chmod(0o444)
            sync(path)
        manifest = json.dumps({"files": files}, sort_keys=True, separators=(",", ":")).encode()
        with written_aside(folder, manifest) as file:
            file.rename(folder / "manifest.json")
        folder.chmod(0o755)
        sync(folder)
        digest = hashlib.sha256(manifest).hexdigest()
        with no_removal(model_root):
            _set_aside_if_damaged(model_root, digest, folder)
            try:
                folder.rename(model_root / digest)
            except OSError as error:
                # A folder that is there and not empty is this artifact, published before.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            touch(model_root / digest)
        sync(model_root)
    artifact = Artifact(model_root, digest)
    artifact.verify()
    return artifact


def _set_aside_if_damaged(model_root: Path, digest: str, replacement: Path) -> None:
    """Make room where the artifact is there but damaged; what was there goes with the replacement's temporary name."""
    if not (model_root / digest).exists():
        return
    try:
        Artifact(model_root, digest).verify(force=True)
    except ArtifactDamaged:
        (model_root / digest).rename(replacement.with_name(f"{replacement.name}-damaged"))


@contextlib.contextmanager
def no_removal(model_root: Path, *, alone: bool = False) -> Iterator[None]:
    """Keep what lies below the model root from being removed meanwhile; whoever removes is alone."""
    descriptor = os.open(model_root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def touch(folder: Path) -> None:
    """Make a folder young: only what is old and used by nobody may be removed."""
    # It may be somebody else's, who alone may remove it, or have been removed: reading it will tell.
    with contextlib.suppress(PermissionError, FileNotFoundError):
        os.utime(folder)


def bound_digest(model_root: Path, reference: ModelReference) -> str | None:
    """The digest that `name@version` means on this machine."""
    file = model_root / "names" / str(reference)
    with explained(model_root):
        try:
            file.lstat()
        except FileNotFoundError:
            return None
    # Whoever has just bound the name may not have removed the second link to the file yet.
    digest = read_plain(file, _MAX_NAME_BYTES, has_links=True).decode("ascii", "replace").strip()
    if not is_digest(digest):
        raise ArtifactDamaged(f'file "{reference}" does not hold a digest', detail=f'It lies in "{file.parent}".')
    return digest


def bind_name(model_root: Path, reference: ModelReference, digest: str) -> None:
    """Let `name@version` mean `digest` on this machine; it can never mean another one."""
    names = model_root / "names"
    with explained(model_root):
        names.mkdir(mode=0o755, exist_ok=True)
        with no_removal(model_root), written_aside(names, f"{digest}\n".encode()) as file:
            try:
                os.link(file, names / str(reference))
                sync(names)
                return
            except FileExistsError:
                pass
    if bound_digest(model_root, reference) != digest:
        raise NameTaken(
            f'"{reference}" already means another artifact on this machine',
            detail="A version is immutable: vectors that were made with it must stay reproducible.",
            hint="Choose another version name, or pass NULL to get the next free one.",
        )
