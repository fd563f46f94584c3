"""Turns a staged model that writes text into an artifact for CTranslate2: converted, compared, published."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pgml_tune.engine.artifact import CT2_CONFIG, LEXICON, Artifact, new_artifact
from pgml_tune.errors import NotSupported
from pgml_tune.jobs.publishing import EXPORTER, Site, publish_configured, scratch
from pgml_tune.jobs.sequence_model import SequenceModel, describe, load_network
from pgml_tune.jobs.source import Source
from pgml_tune.jobs.texts import PARITY_TEXTS
from pgml_tune.jobs.writing_checks import PROMPTS, check_conversion, measure_storage
from pgml_tune.records import ArtifactConfig
from pgml_tune.service.prompt import PromptFormat

_UNTOLD = {  # what the converter asks of a configuration, and transformers says in its code alone
    "bart": {"normalize_before": False, "normalize_embedding": True},
    "mbart": {"normalize_before": True, "normalize_embedding": True},
}
STORAGE = {"int8": "int8", "fp32": "float32"}  # as CTranslate2 calls it


def publish_generator(
    staged: Source,
    site: Site,
    *,
    storage: str = "int8",
    generation: Mapping[str, Any] | None = None,
    max_tokens: int | None = None,
    prompts: Sequence[str] = PARITY_TEXTS,
    lexicon: Mapping[str, str] | None = None,
    metrics: Mapping[str, Any] | None = None,
    made_by: Mapping[str, Any] | None = None,
) -> Artifact:
    """Convert a staged folder of transformers, compare the result with it, and publish it.

    `generation` adds to what the model says of itself; some of the `prompts` are what is compared.
    """
    site.report.progress("loading the model")
    model = describe(staged)
    config = configure(model, storage, generation or {}, max_tokens, made_by)
    with new_artifact(site.model_root, site.label) as folder, scratch() as aside:
        if lexicon is not None:
            content = json.dumps(lexicon, ensure_ascii=False, sort_keys=True)
            (folder / LEXICON).write_text(content, encoding="utf-8")
        site.report.progress("converting to CTranslate2")
        plain = aside / "plain"
        convert(load_network(model), model, "fp32", plain)
        site.report.progress("comparing with the original")
        chosen = prompts[:: max(1, len(prompts) // PROMPTS)][:PROMPTS]
        network = load_network(model)
        figures = check_conversion(plain, config, network, model.tokenizer, chosen, site.threads)
        if storage == "fp32":
            shutil.copytree(plain, folder, dirs_exist_ok=True)
        else:
            convert(network, model, storage, folder)
            figures |= measure_storage(plain, folder, config, chosen, site.threads)
        return publish_configured(folder, replace(config, metrics={**(metrics or {}), **figures}), site)


def configure(
    model: SequenceModel,
    storage: str,
    generation: Mapping[str, Any],
    max_tokens: int | None,
    made_by: Mapping[str, Any] | None,
) -> ArtifactConfig:
    """What the artifact of a model says of itself."""
    source: dict[str, Any] = {
        "name": model.source.name,
        "weights_sha256": model.source.weights_sha256,
        "files_sha256": model.source.files_sha256,
        "exporter": EXPORTER,
        "architecture": model.architecture,
    }
    if made_by is not None:
        source["made_by"] = dict(made_by)
    return ArtifactConfig(
        task="text_to_sql",
        engine=model.engine,
        dimensions=model.dimensions,
        max_tokens=min(model.max_tokens, max_tokens or model.max_tokens),
        pooling="none",
        is_normalized=False,
        prompt_query="",
        prompt_passage="",
        pad_token_id=model.pad_token_id,
        storage=storage,
        space_id=model.source.weights_sha256[:32],  # it makes no vectors
        is_batch_invariant=False,
        source=source,
        generation={"prompt": PromptFormat().to_json(), **model.generation, **generation},
    )


def convert(network: Any, model: SequenceModel, storage: str, folder: Path) -> None:
    """Write the files of CTranslate2 and the tokenizer into a folder that may hold others; takes the network apart."""
    from ctranslate2.converters import TransformersConverter
    from ctranslate2.specs import TransformerDecoderModelSpec, TransformerSpec

    class Converter(TransformersConverter):  # type: ignore[misc]
        """Converts the network that is loaded already, and checked to be whole."""

        def load_model(self, *arguments: Any, **options: Any) -> Any:
            return network

        def load_tokenizer(self, *arguments: Any, **options: Any) -> Any:
            return model.tokenizer

        def _load(self) -> Any:
            for name, value in _UNTOLD.get(network.config.model_type, {}).items():
                setattr(network.config, name, value)
            spec = super()._load()
            if isinstance(spec, TransformerSpec):
                _scale(spec, network.config)
            elif not isinstance(spec, TransformerDecoderModelSpec):
                raise ValueError(f"{type(network).__name__} does not read and write text")
            return spec

    with scratch() as aside:
        try:
            converter = Converter(str(model.source.folder))
            converter.convert(str(aside / "converted"), quantization=STORAGE[storage])
        except (ValueError, NotImplementedError, AttributeError, KeyError) as error:
            raise NotSupported(
                f'model "{model.source.name}" cannot be converted for CTranslate2',
                detail=f"{type(network).__name__}: {error}",
            ) from None
        (aside / "converted" / "config.json").rename(aside / "converted" / CT2_CONFIG)
        shutil.copytree(aside / "converted", folder, dirs_exist_ok=True)
    (folder / "tokenizer.json").write_text(model.tokenizer_json(), encoding="utf-8")


def _scale(spec: Any, config: Any) -> None:
    """Scale what the decoder says where transformers does: the converter goes by another field of the family of T5."""
    from ctranslate2.specs.model_spec import OPTIONAL

    if config.model_type in ("t5", "mt5", "umt5"):
        is_scaled = bool(getattr(config, "scale_decoder_outputs", False))
        spec.decoder.scale_outputs = config.d_model**-0.5 if is_scaled else OPTIONAL
