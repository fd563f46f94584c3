"""The models that the benchmark of GPUs runs: one as people use it, one as large as they get."""

from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

LAYERS = {False: 24, True: 2}  # of the large one, by whether the run is quick
_WIDTH, _HEADS, _INNER = 1024, 16, 4096  # those of BERT-large
_MAX_TOKENS = 128  # the exporter's checks compute texts of this length on the CPU


@dataclass(frozen=True, slots=True)
class Subject:
    """A model: its artifact, and the folder that it was exported from."""

    model_root: Path
    digest: str
    source: Path


def make_minilm(root: Path, source: str) -> Subject:
    """all-MiniLM-L6-v2, exported as `pgml-tune import` does it."""
    return _export(root, Path(source))


def make_large(root: Path, tokenizer: str, layers: int) -> Subject:
    """An encoder as wide as BERT-large, with weights that mean nothing and the tokenizer of another model."""
    folder = root / f"source-{layers}"
    if not folder.exists():
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root) as unfinished:
            _write(Path(unfinished, "model"), tokenizer, layers)
            Path(unfinished, "model").rename(folder)
    return _export(root, folder)


def _write(folder: Path, tokenizer: str, layers: int) -> None:
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    words = AutoTokenizer.from_pretrained(tokenizer, model_max_length=_MAX_TOKENS)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=_WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=_HEADS,
        intermediate_size=_INNER,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    words.save_pretrained(folder)


def _export(root: Path, source: Path) -> Subject:
    """The artifact of an earlier run, or a new one; the exporter compares it with its source."""
    from pgml_tune.engine.artifact import new_artifact
    from pgml_tune.jobs.job import available_threads
    from pgml_tune.jobs.publishing import Site, existing, export_model
    from pgml_tune.jobs.reports import Reporter
    from pgml_tune.jobs.source import stage

    model_root = root / "models"
    site = Site(model_root, "", available_threads(), Reporter(io.StringIO()))
    with new_artifact(model_root) as folder:
        staged = stage(str(source), folder)
        artifact = existing(model_root, staged.files_sha256, "embedding", "fp32")
        artifact = artifact or export_model(staged, "embedding", site)
    return Subject(model_root, artifact.digest, source)
