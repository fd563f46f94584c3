"""Opens a network that is still learning as the engine that will serve it, to see what it writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pgml_tune.engine.generator import open_folder
from pgml_tune.engine.local import LocalGenerator
from pgml_tune.jobs.publishing import scratch
from pgml_tune.jobs.sequence_model import describe, load_network
from pgml_tune.jobs.source import stage
from pgml_tune.jobs.sql_scratch import save
from pgml_tune.jobs.translation import configure, convert


def open_network(network: Any, tokenizer: Any, generation: Mapping[str, Any], threads: int) -> LocalGenerator:
    """The network as it is now, in full precision."""
    with scratch() as aside:
        saved, staged, converted = (aside / name for name in ("saved", "staged", "converted"))
        for folder in (saved, staged, converted):
            folder.mkdir()
        save(network, tokenizer, saved)
        source = stage(str(saved), staged, name="trial")
        model = describe(source)
        convert(load_network(model), model, "fp32", converted)
        config = configure(model, "fp32", generation, None, None)
        return cast(LocalGenerator, open_folder(Path(converted), config, threads))
