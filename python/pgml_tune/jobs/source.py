"""The files of a model to import: where they come from, and which of them are let in.

They are copied by an allow-list before anything reads them, so what is checked is what is loaded. Weights come in
safetensors only: a pickle can run code, and so can Python files that a model brings along.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pgml_tune.errors import ArtifactDamaged, InvalidArgument, NotReady, NotSupported, ObjectNotFound

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+\Z", re.ASCII)
_SUFFIXES = (".json", ".safetensors", ".txt", ".model", ".jinja")  # configuration, weights, vocabularies, templates
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".h5", ".msgpack")
_MODULES = ("Transformer", "Pooling", "Dense", "Normalize", "LayerNorm", "Dropout")
_MAX_TEXT_BYTES = 64 << 20
_MAX_HEADER_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """A checked private copy of a model folder."""

    folder: Path
    name: str
    weights_sha256: str
    files_sha256: str


def is_hub_name(source: str) -> bool:
    """Whether a source can be the name of a model on a hub."""
    return _HUB_NAME.match(source) is not None and not source.startswith(".")


def stage(source: str, target: Path, name: str = "") -> Source:
    """Copy what is needed of a model folder, or of a hub's model, into `target` and check it."""
    origin, own_name = _locate(source)
    name = name or own_name
    hashes = _copy_folder(origin, "", target)
    if "config.json" not in hashes and "modules.json" not in hashes:
        raise InvalidArgument(
            f'"{source}" is not a model folder',
            detail="It holds neither modules.json (sentence-transformers) nor config.json (transformers).",
        )
    folders = _module_folders(target, name)
    for folder in sorted(folders - {""}):
        hashes |= _copy_folder(origin, folder, target)
    _check_weights(target, origin, folders, name)
    weights = {path: digest for path, digest in hashes.items() if path.endswith(".safetensors")}
    return Source(target, name, _combine(weights), _combine(hashes))


def _locate(source: str) -> tuple[Path, str]:
    folder = Path(source)
    if folder.is_dir():
        return folder.resolve(), folder.resolve().name
    if not is_hub_name(source):
        raise ObjectNotFound(
            f'there is no model folder "{source}"',
            detail="A source is a folder of sentence-transformers or transformers, or a name org/model on a hub.",
        )
    return _download(source), source


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[f"*{suffix}" for suffix in _SUFFIXES]))
    except Exception as error:  # the hub's client raises errors of several HTTP libraries
        raise NotReady(
            f'model "{name}" cannot be fetched from the hub',
            detail=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no answer'}",
            hint="Copy the model's folder to this machine and pass its path.",
        ) from None


def _copy_folder(origin: Path, folder: str, target: Path) -> dict[str, str]:
    """Copy the allowed files of one folder; the result maps their relative paths to sha256."""
    hashes = {}
    try:
        entries = sorted(os.scandir(origin / folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return {}  # a module without files, such as Normalize
    (target / folder).mkdir(exist_ok=True)
    for entry in entries:
        if entry.name.endswith(".py"):
            raise NotSupported(
                f'the model brings code of its own: "{PurePosixPath(folder) / entry.name}"',
                detail="Code that comes with a model is never run.",
                hint="Use a model whose architecture is part of the transformers library.",
            )
        if entry.name.endswith(_SUFFIXES) and not entry.is_dir():
            path = str(PurePosixPath(folder) / entry.name)
            hashes[path] = _copy_file(_inside(origin, Path(entry.path)), target / path)
    return hashes


def _inside(origin: Path, path: Path) -> Path:
    """The file a link stands for, which must lie in the folder itself or in the blobs of a hub's cache."""
    resolved = path.resolve()
    blobs = origin.parent.parent / "blobs"
    if not (resolved.is_relative_to(origin) or resolved.is_relative_to(blobs)):
        raise InvalidArgument(f'"{path.name}" of the model is a link that leads out of its folder')
    return resolved


def _copy_file(path: Path, target: Path) -> str:
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as reader, target.open("xb") as writer:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidArgument(f'"{target.name}" of the model is not a plain file')
        if target.suffix in (".json", ".jinja") and status.st_size > _MAX_TEXT_BYTES:
            raise InvalidArgument(f'"{target.name}" of the model is larger than {_MAX_TEXT_BYTES} bytes')
        while chunk := reader.read(_CHUNK_BYTES):
            digest.update(chunk)
            writer.write(chunk)
    return digest.hexdigest()


def _module_folders(folder: Path, name: str) -> set[str]:
    """The folders that modules.json names; '' is the model's own."""
    if not (folder / "modules.json").exists():
        return {""}
    modules = _read_json(folder / "modules.json")
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ArtifactDamaged(f'modules.json of model "{name}" is not a list of modules')
    folders = {""}
    for module in modules:
        kind, path = str(module.get("type")), PurePosixPath(str(module.get("path", "")))
        if not kind.startswith("sentence_transformers.") or kind.rpartition(".")[2] not in _MODULES:
            raise NotSupported(
                f'model "{name}" has a module that cannot be imported: {kind}',
                detail=f"These can: {', '.join(_MODULES)}.",
            )
        if path.is_absolute() or ".." in path.parts:
            raise InvalidArgument(f'modules.json of model "{name}" leads out of its folder')
        folders.add("" if path == PurePosixPath(".") else str(path))
    return folders


def _check_weights(folder: Path, origin: Path, folders: set[str], name: str) -> None:
    for part in sorted(folders):
        has_weights = False
        for file in sorted((folder / part).glob("*.safetensors")):
            _check_header(file)
            has_weights = True
        pickles = sorted(path.name for path in (origin / part).glob("*") if path.suffix in _PICKLES)
        if pickles and not has_weights:
            raise NotSupported(
                f'the weights of model "{name}" are only there as pickle: "{PurePosixPath(part) / pickles[0]}"',
                detail="Loading a pickle can run any code, so only safetensors is read.",
                hint="Where you trust it: load it with its library; save_pretrained(new_folder) writes safetensors.",
            )
        for config in ("config.json", "tokenizer_config.json"):
            if (folder / part / config).exists() and "auto_map" in _read_json(folder / part / config):
                raise NotSupported(
                    f'model "{name}" wants code of its own to be run: "auto_map" in {config}',
                    detail="Code that comes with a model is never run.",
                    hint="Use a model whose architecture is part of the transformers library.",
                )
        if (folder / part / "adapter_config.json").exists():
            raise NotSupported(
                f'model "{name}" is an adapter on top of another model',
                hint="Merge it first: PeftModel.merge_and_unload(), then save the merged model.",
            )
    if not list(folder.glob("**/*.safetensors")):
        raise InvalidArgument(f'model "{name}" has no weights', detail="There is no file *.safetensors.")


def _check_header(file: Path) -> None:
    """Refuse a safetensors file whose header is not bounded; the library checks offsets and sizes."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
    if not 2 <= length <= min(_MAX_HEADER_BYTES, file.stat().st_size - 8):
        raise ArtifactDamaged(f'"{file.name}" of the model is not a safetensors file')


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise ArtifactDamaged(f'"{path.name}" of the model is not JSON') from None


def _combine(hashes: dict[str, str]) -> str:
    lines = "".join(f"{digest}  {path}\n" for path, digest in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
