"""What the extension is compared with, each in a process of its own so that their threads never meet."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from report import Seconds

Vectors = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]
BATCH_TEXTS = 32  # what sentence-transformers takes by itself; more would only pad more


class Contender:
    """A library with a loaded model in a child process, which takes the time of its own work."""

    def __init__(self, make: Callable[..., Embed], *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, far_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(far_end, make, args), daemon=True)
        self._process.start()
        far_end.close()
        self.run(["a first text"])

    def run(self, texts: Sequence[str]) -> tuple[Seconds, Vectors]:
        """What it took to embed the texts, and their vectors."""
        self._pipe.send(texts)
        elapsed, vectors = self._pipe.recv()
        return elapsed, vectors

    def close(self) -> None:
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection, make: Callable[..., Embed], args: tuple[Any, ...]) -> None:
    embed = make(*args)
    while True:
        try:
            texts = pipe.recv()
        except EOFError:
            return
        started, on_core = time.perf_counter(), time.thread_time()
        vectors = embed(texts)
        pipe.send((Seconds(time.perf_counter() - started, time.thread_time() - on_core), vectors))


def onnx_one_by_one(package_folder: str, artifact: str, threads: int) -> Embed:
    """The file of an artifact called directly with the options of the engine, one text per call."""
    sys.path.insert(0, package_folder)
    from tokenizers import Tokenizer

    from pgml_tune.engine.onnx import OnnxRuntime

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = Tokenizer.from_file(f"{artifact}/tokenizer.json")
    tokenizer.enable_truncation(json.loads(Path(artifact, "config.json").read_text())["max_tokens"])
    runtime = OnnxRuntime(Path(artifact, "model.onnx"), threads)

    def one(text: str) -> Vectors:
        ids = np.array([tokenizer.encode(text).ids], np.int64)
        return runtime.run(ids, np.ones_like(ids))[0]

    return lambda texts: np.stack([one(text) for text in texts])


def sentence_transformers(folder: str, threads: int) -> Embed:
    """sentence-transformers on torch, in fp32."""
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1")
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    model = SentenceTransformer(folder, device="cpu")
    return lambda texts: model.encode(list(texts), batch_size=BATCH_TEXTS, show_progress_bar=False)


def fastembed(folder: str, artifact: str, threads: int) -> Embed:
    """fastembed on the file of an artifact, as a custom model from a local folder."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    config = json.loads(Path(artifact, "config.json").read_text())
    name = f"local/{config['storage']}"
    TextEmbedding.add_custom_model(
        model=name,
        pooling=PoolingType.DISABLED,  # pooling and normalisation are in the file
        normalization=False,
        sources=ModelSource(hf=name),
        dim=config["dimensions"],
        model_file="model.onnx",
    )
    with tempfile.TemporaryDirectory() as local:
        for file in ("config.json", "special_tokens_map.json", "tokenizer.json"):
            Path(local, file).symlink_to(Path(folder, file))
        tokenizer_config = json.loads(Path(folder, "tokenizer_config.json").read_text())
        tokenizer_config |= {"model_max_length": config["max_tokens"], "max_length": config["max_tokens"]}
        Path(local, "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
        for file in ("model.onnx", "model.onnx.data"):  # copies: ONNX Runtime follows no link to weights
            shutil.copyfile(Path(artifact, file), Path(local, file))
        model = TextEmbedding(name, threads=threads, specific_model_path=local)
    return lambda texts: np.stack(list(model.embed(list(texts), batch_size=BATCH_TEXTS)))
