"""Tokenizers with chat templates in the manner of the usual families, trained on a few words."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "사과를 주세요.",
    "네, 여기 있습니다.",
    "요약: 사과를 산다.",
    "system user assistant model 0123456789 abc\n",
] * 4

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
FORGETS_THOUGHTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}"
)
WITHOUT_END = (
    "{{ bos_token }}{% for m in messages %}### {{ m.role }}\n{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}### assistant\n{% endif %}"
)
"""Nothing says where an answer ends."""


def tokenizer_of(template: str | None = None, *, begins: bool = False, pads: bool = True, control=()):
    """Make a tokenizer whose end token is ``</s>``.

    Args:
        template: Its chat template.
        begins: Whether it puts ``<s>`` before every text by itself.
        pads: Whether it has a token for padding.
        control: Control tokens of the template.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<unk>", "<s>", "</s>", *control],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>" if pads else None,
        additional_special_tokens=list(control),
        chat_template=template,
    )


CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
GEMMA_TOKENS = ("<start_of_turn>", "<end_of_turn>")


def tokenizers():
    """Give every kind of tokenizer and template by name."""
    return {
        "chatml": tokenizer_of(CHATML, control=CHATML_TOKENS),
        "marked": tokenizer_of(MARKED, control=CHATML_TOKENS),
        "no_system": tokenizer_of(NO_SYSTEM, begins=True, control=GEMMA_TOKENS),
        "without_end": tokenizer_of(WITHOUT_END, begins=True),
        "without_begin": tokenizer_of(CHATML, begins=True, control=CHATML_TOKENS),
        "no_template": tokenizer_of(None, begins=True),
        "no_padding": tokenizer_of(CHATML, pads=False, control=CHATML_TOKENS),
    }
