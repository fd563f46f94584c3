"""The artifact of a model that a server runs: nothing but what the server calls it."""

from __future__ import annotations

import hashlib
import re

from pgml_tune.engine.artifact import Artifact, new_artifact
from pgml_tune.engine.generator import ENDPOINT, Generator
from pgml_tune.errors import InvalidArgument
from pgml_tune.jobs.publishing import EXPORTER, Site, publish_configured
from pgml_tune.records import ArtifactConfig
from pgml_tune.service.prompt import PromptFormat

PREFIX = "endpoint:"
STORAGE = "server"
_NAME = re.compile(r"[A-Za-z0-9][\w./:@+-]{0,199}\Z", re.ASCII)
_MAX_TOKENS, _MAX_OUTPUT_TOKENS = 4096, 512


def publish_served(source: str, site: Site) -> Artifact:
    """The artifact of the model that a source such as endpoint:qwen names."""
    name = source.removeprefix(PREFIX)
    if not _NAME.match(name):
        raise InvalidArgument(
            f'"{source}" does not name a model of a server',
            detail="Behind endpoint: stands the name that the server has for it: up to 200 letters, digits, ._/:@+-",
            hint="CALL import_model('writer', 'endpoint:qwen2.5-coder', 'text_to_sql')",
        )
    digest = hashlib.sha256(source.encode()).hexdigest()
    config = ArtifactConfig(
        task=Generator.task,
        engine=ENDPOINT,
        dimensions=1,  # nobody knows
        max_tokens=_MAX_TOKENS,
        pooling="none",
        is_normalized=False,
        prompt_query="",
        prompt_passage="",
        pad_token_id=0,
        storage=STORAGE,
        space_id=digest[:32],  # it makes no vectors
        is_batch_invariant=False,
        source={"name": source, "files_sha256": digest, "exporter": EXPORTER},
        generation={"prompt": PromptFormat().to_json(), "model": name, "max_output_tokens": _MAX_OUTPUT_TOKENS},
    )
    with new_artifact(site.model_root, site.label) as folder:
        return publish_configured(folder, config, site)
