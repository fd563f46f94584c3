"""A model that knows nothing yet: a small T5 with random weights, and a tokenizer made of the rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from pgml_tune.service.prompt import PLACEHOLDERS

_PAD, _END, _UNKNOWN = "<pad>", "</s>", "<unk>"
_MAX_TOKENS = 1024  # read; T5 has no places that could run out
_RARE = 2  # pieces of fewer words are not worth a token
_DROPOUT = 0.15
# Scripts without spaces between words: one token for each character, as pieces of few sentences would be whole clauses.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_SIGN = r"▁?[^\w\s▁]"  # with the space before it


@dataclass(frozen=True, slots=True)
class _Size:
    width: int
    inner: int
    layers: int  # of the encoder, and of the decoder
    heads: int


_SIZES = {
    "tiny": _Size(96, 256, 2, 4),
    "small": _Size(128, 384, 2, 4),
    "base": _Size(320, 1024, 4, 8),
}


def new_tokenizer(texts: Iterable[str], vocabulary_size: int) -> Any:
    """A tokenizer of transformers with the pieces that these texts have most."""
    words = Tokenizer(models.BPE(unk_token=_UNKNOWN))
    words.normalizer = normalizers.NFKC()
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # A space before the first word only, so that what follows a placeholder may stand close to it.
            pre_tokenizers.Metaspace(prepend_scheme="first"),
            pre_tokenizers.Split(Regex(_UNSPACED), "isolated"),
            pre_tokenizers.Split(Regex(_SIGN), "isolated"),
        ]
    )
    words.decoder = decoders.Metaspace(prepend_scheme="first")
    special = [_PAD, _END, _UNKNOWN]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - len(PLACEHOLDERS),
        special_tokens=special,
        min_frequency=_RARE,
        show_progress=False,
    )
    words.train_from_iterator(texts, trainer)
    # Not special ones, which are left out of what is written.
    words.add_tokens([AddedToken(sign, normalized=False) for sign in PLACEHOLDERS])
    words.post_processor = processors.TemplateProcessing(
        single=f"$A {_END}", special_tokens=[(_END, words.token_to_id(_END))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=_PAD,
        eos_token=_END,
        unk_token=_UNKNOWN,
        model_max_length=_MAX_TOKENS,
        clean_up_tokenization_spaces=False,
    )


def new_network(size: str, tokenizer: Any) -> Any:
    """A T5 with random weights; `size` is what stands behind scratch: in the option base."""
    shape = _SIZES[size]
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=shape.width,
            d_kv=shape.width // shape.heads,
            d_ff=shape.inner,
            num_layers=shape.layers,
            num_decoder_layers=shape.layers,
            num_heads=shape.heads,
            dropout_rate=_DROPOUT,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
        )
    )


def save(network: Any, tokenizer: Any, folder: Path) -> None:
    """Write a folder as transformers reads it."""
    network.save_pretrained(str(folder), safe_serialization=True)
    tokenizer.save_pretrained(str(folder))
