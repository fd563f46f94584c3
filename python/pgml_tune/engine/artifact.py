"""Artifacts: immutable folders of model files below the model root, named by their digest.

    <model_root>/<sha256 of manifest.json>/manifest.json   sha256 and size of each file
                                           config.json     ArtifactConfig
                                           model.onnx, tokenizer.json
    <model_root>/names/<name>@<version>                     the digest that this name means on this machine, for ever
    <model_root>/verified/<digest>                          the file identities under which the hashes were last checked
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pgml_tune.errors import ArtifactDamaged, DiskFull, NameTaken, NotReady
from pgml_tune.records import ArtifactConfig, ModelReference, is_digest

ALLOWED_FILES = frozenset({"config.json", "model.onnx", "tokenizer.json"})
_CHUNK_BYTES = 1 << 20


def read_file(path: Path, max_bytes: int = 64 << 20) -> bytes:
    """The bytes of a regular file; a link, a pipe, a device or a hard-linked file is refused."""
    descriptor = _open(path)
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(descriptor).st_size > max_bytes:
            raise ArtifactDamaged(f'file "{path.name}" of the artifact is larger than {max_bytes} bytes')
        return file.read()


def _open(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ArtifactDamaged(
            f'file "{path.name}" of the artifact cannot be read', detail=f"{os.strerror(error.errno or 0)}."
        ) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        os.close(descriptor)
        raise ArtifactDamaged(f'file "{path.name}" of the artifact is not a plain file')
    return descriptor


def _identity(path: Path) -> list[int]:
    status = os.stat(path, follow_symlinks=False)
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _hash_file(path: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with os.fdopen(_open(path), "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


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
        manifest = read_file(self.folder / "manifest.json")
        if hashlib.sha256(manifest).hexdigest() != digest:
            raise self._damaged("manifest.json")
        self.files: dict[str, dict[str, int | str]] = json.loads(manifest)["files"]
        if not set(self.files) <= ALLOWED_FILES:
            raise self._damaged("manifest.json")

    @property
    def size_bytes(self) -> int:
        return sum(int(entry["size"]) for entry in self.files.values())

    def config(self) -> ArtifactConfig:
        content = read_file(self.folder / "config.json")
        if hashlib.sha256(content).hexdigest() != self.files["config.json"]["sha256"]:
            raise self._damaged("config.json")
        return ArtifactConfig.from_json(json.loads(content))

    def path(self, name: str) -> Path:
        return self.folder / name

    def verify(self, *, force: bool = False) -> None:
        """Check every file against the manifest; hashing is skipped for files unchanged since the last check."""
        identities = {}
        for name in self.files:
            os.close(_open(self.folder / name))
            identities[name] = _identity(self.folder / name)
        if not force and identities == self._last_verified():
            return
        for name, entry in self.files.items():
            if _hash_file(self.folder / name) != (entry["sha256"], entry["size"]):
                raise self._damaged(name)
        # Not being able to remember costs the next session a hash; it is no error.
        with contextlib.suppress(OSError):
            self._verified.parent.mkdir(mode=0o755, exist_ok=True)
            _write_whole(self._verified, json.dumps(identities).encode())

    def _last_verified(self) -> dict[str, list[int]] | None:
        try:
            recorded: dict[str, list[int]] = json.loads(self._verified.read_bytes())
        except (OSError, ValueError):
            return None
        return recorded

    def _damaged(self, name: str) -> ArtifactDamaged:
        return ArtifactDamaged(
            f'file "{name}" of artifact "{self.digest[:12]}" does not match its checksum',
            detail=f'It lies in "{self.folder}".',
            hint="Restore the folder from a copy, or import the model again.",
        )


def _write_whole(path: Path, content: bytes) -> None:
    """Put `content` at `path` in one step: readers see the old file, none, or all of the new one."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(descriptor, 0o644)
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def new_artifact(model_root: Path) -> Iterator[Path]:
    """A temporary folder below the model root, removed afterwards; fill it, then `publish` it."""
    model_root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=model_root, prefix=".building-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def publish(model_root: Path, folder: Path) -> Artifact:
    """Make a filled folder an artifact: manifest written, all synced, renamed to its digest.

    The same content published twice is one artifact.
    """
    try:
        files = {}
        for path in sorted(folder.iterdir()):
            if path.name not in ALLOWED_FILES:
                raise ArtifactDamaged(f'an artifact may not hold a file "{path.name}"')
            sha256, size = _hash_file(path)
            files[path.name] = {"sha256": sha256, "size": size}
            path.chmod(0o444)
            _sync_file(path)
        manifest = json.dumps({"files": files}, sort_keys=True, separators=(",", ":")).encode()
        _write_whole(folder / "manifest.json", manifest)
        _sync_folder(folder)
        folder.chmod(0o755)
        digest = hashlib.sha256(manifest).hexdigest()
        # A rename onto an existing, filled folder fails: then it is already published.
        with contextlib.suppress(FileExistsError):
            try:
                folder.rename(model_root / digest)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
        _sync_folder(model_root)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f'no space left below "{model_root}"') from None
        raise
    artifact = Artifact(model_root, digest)
    artifact.verify()
    return artifact


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def bound_digest(model_root: Path, reference: ModelReference) -> str | None:
    """The digest that `name@version` means on this machine."""
    try:
        digest = (model_root / "names" / str(reference)).read_text().strip()
    except FileNotFoundError:
        return None
    return digest if is_digest(digest) else None


def bind_name(model_root: Path, reference: ModelReference, digest: str) -> None:
    """Let `name@version` mean `digest` on this machine; it can never mean another one."""
    names = model_root / "names"
    names.mkdir(mode=0o755, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=names, prefix=".new-")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(digest + "\n")
            file.flush()
            os.fchmod(descriptor, 0o644)
            os.fsync(descriptor)
        try:
            os.link(temporary, names / str(reference))
            _sync_folder(names)
        except FileExistsError:
            if bound_digest(model_root, reference) != digest:
                raise NameTaken(
                    f'"{reference}" already means another artifact on this machine',
                    detail="A version is immutable: vectors that were made with it must stay reproducible.",
                    hint="Choose another version name, or pass NULL to get the next free one.",
                ) from None
    finally:
        os.unlink(temporary)
