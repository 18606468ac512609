"""The tokenizer of a rehearsal: trained on the data, with the control tokens of the architecture."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

WORD_MARK = "▁"
"""What stands before the first piece of a word in BPE."""
ROLES = tuple(f"{role}_token" for role in ("pad", "unk", "cls", "sep", "bos", "eos", "mask"))
"""What control tokens are for."""

_READS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_WRITES = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
_AS_SENTENCEPIECE = normalizers.Sequence(
    [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
)
"""What a sentencepiece tokenizer such as T5's does to a text first; newlines become spaces."""


@dataclass(frozen=True)
class Plan:
    """What the tokenizer of an architecture is like."""

    control_tokens: Mapping[str, str]
    """Control tokens by role, in the order of their ids; two roles may share one."""
    begin: str | None
    """Token before every text, if any."""
    end: str | None
    """Token after every text, if any."""
    is_wordpiece: bool
    """Whether it is WordPiece, as BERT's, and not BPE."""
    keeps_newlines: bool
    """Whether it keeps newlines; sentencepiece's, as T5's, makes them spaces."""


def plan_of(model_type: str) -> Plan:
    """Return what the tokenizers of a model type are like, as transformers' own class for them has it.

    Encoders put every text between two tokens, encoder–decoders end it, decoders begin it when they have a token
    for that. Padding and unknown letters have tokens of their own, which no end of a text is taken for.
    """
    config = AutoConfig.for_model(model_type)
    name = TOKENIZER_MAPPING_NAMES.get(model_type)
    known = None if name is None else tokenizer_class_from_name(name)
    tokens = {} if known is None else _tokens_of_class(known)
    is_encoder = model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.is_encoder_decoder
    if not tokens:
        tokens = dict(_READS if is_encoder else _WRITES)
    if config.is_encoder_decoder or "sep_token" not in tokens:
        tokens.setdefault("eos_token", tokens.get("sep_token", _WRITES["eos_token"]))
    for role in ("pad_token", "unk_token"):
        if tokens.get(role) in (None, tokens.get("eos_token")):
            tokens[role] = _WRITES[role]
    if config.is_encoder_decoder:
        tokens = {role: token for role, token in tokens.items() if role not in ("cls_token", "sep_token")}
    tokens = {role: tokens[role] for role in sorted(tokens, key=lambda role: _place(config, role))}
    begin, end = None, None
    if {"cls_token", "sep_token"} <= tokens.keys():
        begin, end = tokens["cls_token"], tokens["sep_token"]
    elif config.is_encoder_decoder:
        end = tokens["eos_token"]
    elif tokens.get("bos_token") != tokens["eos_token"]:
        begin = tokens.get("bos_token")
    kind = getattr(known, "model", None)
    return Plan(tokens, begin, end, kind is models.WordPiece, kind is not models.Unigram)


def _tokens_of_class(known: type) -> dict[str, str]:
    """Return the control tokens that a class of tokenizers has by itself."""
    parameters = inspect.signature(known).parameters
    return {
        role: str(parameters[role].default)
        for role in ROLES
        if role in parameters and parameters[role].default
    }


def _place(config: PretrainedConfig, role: str) -> tuple[float, int]:
    """Return the id that a configuration gives a role, if any, to order by."""
    place = getattr(config, f"{role}_id", None)
    return (place if isinstance(place, int) else float("inf"), ROLES.index(role))


def train(plan: Plan, texts: Sequence[str], size: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer on texts, to a vocabulary of at most ``size``; equal texts give equal tokenizers."""
    tokenizer = (_train_wordpiece if plan.is_wordpiece else _train_bpe)(plan, texts, size)
    ends = [token for token in (plan.begin, plan.end) if token is not None]
    if ends:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=" ".join(filter(None, (plan.begin, "$A", plan.end))),
            pair=" ".join(filter(None, (plan.begin, "$A", plan.end, "$B:1", plan.end and f"{plan.end}:1"))),
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in ends],
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **plan.control_tokens)


def _train_bpe(plan: Plan, texts: Sequence[str], size: int) -> Tokenizer:
    """Train BPE over words.

    For T5 too, whose own tokenizer is Unigram: its trainer gives another vocabulary in every process.
    """
    tokens = plan.control_tokens
    tokenizer = Tokenizer(models.BPE(unk_token=tokens["unk_token"]))
    tokenizer.normalizer = normalizers.NFC() if plan.keeps_newlines else _AS_SENTENCEPIECE
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(dict.fromkeys(tokens.values())), show_progress=False
    )
    tokenizer.train_from_iterator(_common_characters(texts, size // 2), trainer)
    return tokenizer


def _train_wordpiece(plan: Plan, texts: Sequence[str], size: int) -> Tokenizer:
    """Train WordPiece, whose pieces are those of BPE over words that begin with a mark.

    The trainer of WordPiece itself gives pieces inside of words other ids in every process. Letters keep their
    case and Hangul its syllables, which BERT's usual way of stripping accents takes apart.
    """
    tokens = plan.control_tokens
    normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.BertNormalizer(strip_accents=False, lowercase=False)]
    )
    words = Tokenizer(models.BPE())
    words.normalizer = normalizer
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    # A word with a single unknown letter is unknown as a whole, so letters go before longer pieces.
    single = _letters(words, texts)[: 3 * size // 4]
    num_longer = max(0, size - len(tokens) - len(single))
    alphabet = {letter for text in texts for letter in normalizer.normalize_str(text)} | {WORD_MARK}
    # Its first merges join the mark with a letter, which gives no longer piece.
    num_merges = len(single) + num_longer
    trainer = trainers.BpeTrainer(vocab_size=len(alphabet) + num_merges, show_progress=False)
    words.train_from_iterator(texts, trainer)
    learned = sorted(words.get_vocab().items(), key=lambda item: item[1])
    pieces = [_wordpiece(piece) for piece, _ in learned]
    longer = [piece for piece in pieces if len(piece.removeprefix("##")) > 1][:num_longer]
    vocabulary = dict.fromkeys([*tokens.values(), *single, *longer])
    tokenizer = Tokenizer(
        models.WordPiece(
            {piece: place for place, piece in enumerate(vocabulary)}, unk_token=tokens["unk_token"]
        )
    )
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer


def _letters(words: Tokenizer, texts: Sequence[str]) -> list[str]:
    """Return the pieces of one letter, at the beginning of a word or inside, the frequent ones first."""
    counts: Counter[str] = Counter()
    for text in texts:
        for word, _ in words.pre_tokenizer.pre_tokenize_str(words.normalizer.normalize_str(text)):
            counts.update(
                _wordpiece(word[:2]) if place == 0 else f"##{letter}" for place, letter in enumerate(word[1:])
            )
    return sorted(counts, key=lambda piece: (-counts[piece], piece))


def _wordpiece(piece: str) -> str:
    """Return a piece of marked words as WordPiece writes it."""
    return piece.removeprefix(WORD_MARK) if piece.startswith(WORD_MARK) else f"##{piece}"


def _common_characters(texts: Sequence[str], limit: int) -> Sequence[str]:
    """Return the texts with all but the ``limit`` most frequent characters made spaces.

    Every character of the training text takes a place in the vocabulary, and the Hangul syllables of a real
    corpus alone can be more than a small vocabulary holds. The rare ones are unknown to it instead.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    if len(counts) <= limit:
        return texts
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    blank = dict.fromkeys(map(ord, ranked[limit:]), " ")
    return [text.translate(blank) for text in texts]
