"""Instruction fine-tuning of decoder-only models: Llama, Qwen, Gemma, EXAONE …, fully, with LoRA or with QLoRA."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy

from dure.config.data import SAMPLE
from dure.config.schema import Experiment, Profile
from dure.data.dialogues import lead
from dure.data.tables import Table, columns_of
from dure.errors import UserError
from dure.family import Features, Rows
from dure.metrics.metric import Metric
from trainables._summaries import WritesTexts, decoded, dialogue_rows
from trainables.causal.options import CausalOptions
from trainables.causal.turns import CHATS, TEXT, Framing, Layout, Turns, parsed, recognised, roles_of
from trainables.samples.chats import chat_rows

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from dure.modeling.task import Task
    from trainables.causal.chat import Chat, Encoded
    from trainables.causal.likelihood import TargetLosses
    from trainables.causal.packing import Conversations

_PERPLEXITY = Metric("eval_perplexity", "min")


class Causal(WritesTexts):
    """Reads a conversation and says what comes next."""

    options_section = CausalOptions
    options: CausalOptions
    converts = ("causal",)
    exports = ("transformers", "adapter", "ctranslate2")
    refuses_r_drop = (
        "R-Drop compares two whole distributions of every token, and decoder-only models keep the likelihood of the "
        "target alone, since a distribution over their vocabularies is too large to keep"
    )

    def __init__(self, experiment: Experiment, *args: Any) -> None:
        super().__init__(experiment, *args)
        self.metrics = (*self.metrics, _PERPLEXITY)
        self.layout = self._layout()
        self.roles = roles_of(self.layout)
        prefix = experiment.tokenizer.input_prefix
        self.framing = Framing(prefix + self.options.prompt, self.options.system)
        self._own_ends: frozenset[int] = frozenset()

    @property
    def validates(self) -> Literal["text", "loss"]:
        """What validation computes beside the loss, as the experiment says."""
        return self.options.validates

    def measured_by(self, metric: str) -> str:
        """Return that perplexity is of the same tokens as the loss."""
        return super().measured_by("eval_loss" if metric == _PERPLEXITY.name else metric)

    def recognised(self) -> Mapping[str, str]:
        """Return the layout of rows, where the training table decided it."""
        is_own = self.options.rows == "auto" and self.experiment.data.train != SAMPLE
        return {"task.rows": self.layout} if is_own else {}

    def sample(self, split: str) -> list[dict[str, str]]:
        """Return the embedded Korean dialogues with their summaries, or conversations about them."""
        if self.layout in CHATS:
            return [{"id": row.id, "text": row.messages} for row in chat_rows(split)]
        return dialogue_rows(split)

    def survey(self, tables: Mapping[str, Table]) -> None:
        """Tell how rows are read, and refuse conversations without an answer."""
        self.tell_unused_prompts()
        if self.options.rows == "auto" and self.experiment.data.train != SAMPLE:
            read = " + ".join(role.column for role in self.roles if not role.is_id and role.of is None)
            self.notify(
                f"{tables['train'].source}: rows are read as {self.layout} ({read}); task.rows says otherwise"
            )
        if self.experiment.generation.no_repeat_ngram_size:
            self.notify(
                "generation.no_repeat_ngram_size forbids what stands in the prompt too, such as names"
            )
        for split, table in tables.items():
            if split == "test" or self.layout not in CHATS:
                continue
            lacking = [row for row, answer in enumerate(table.dataset["target"][:]) if not answer]
            if lacking:
                raise UserError(
                    f"{table.place(lacking[0])} ends without an answer"
                    + (f", and so do {len(lacking) - 1:,} more" if len(lacking) > 1 else ""),
                    where=table.source,
                    expected="conversations whose last turn is the assistant's",
                    hint="answer them, or leave the rows out of the table",
                )

    def tell_unused_prompts(self) -> None:
        """Tell that nothing is put around rows that bring whole prompts, where the experiment says something."""
        given = {
            "task.prompt": self.options.prompt != TEXT,
            "tokenizer.input_prefix": bool(self.experiment.tokenizer.input_prefix),
        }
        for key in (key for key, is_given in given.items() if is_given and self.layout in CHATS):
            self.notify(
                f"{key} is not used: rows of {self.layout} bring whole prompts; task.system says something in front of "
                "all of them"
            )

    def load_tokenizer(self, texts: Callable[[], Iterator[str]]) -> PreTrainedTokenizerBase:
        """Load the checkpoint's tokenizer, or train the rehearsal's, with a chat template and something to pad with."""
        from dure.modeling.loading import load_tokenizer
        from trainables.causal.template import set_template

        tokenizer = load_tokenizer(self.experiment, lambda: self._words(texts()), closes_texts=False)
        set_template(
            tokenizer,
            self.options.chat_template,
            stands_in=self.experiment.rehearsal.enabled,
            notify=self.notify,
        )
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
            self.notify(
                f"the tokenizer has no token to pad with: {tokenizer.pad_token} does, which is masked"
            )
        if opening := self._chat(tokenizer).opening.strip():
            self.notify(
                f"the chat template begins every answer with {opening!r}: it is learned with the answers, and no part "
                "of what is predicted; task.template_options.enable_thinking=false puts it into prompts, in templates "
                "that know that option"
            )
        return tokenizer

    def task(self) -> Task:
        """Return what a decoder does: it continues a text."""
        from dure.modeling.task import CAUSAL

        return CAUSAL

    def load_model(self, tokenizer: PreTrainedTokenizerBase, profile: Profile) -> PreTrainedModel:
        """Load the model, which generates as the experiment says and scores targets."""
        model = super().load_model(tokenizer, profile)
        said, is_known = self.experiment.model, not self.experiment.rehearsal.enabled
        return self._ready(model, tokenizer, said.checkpoint if is_known else None, said.revision)

    def encode(self, rows: Rows, tokenizer: PreTrainedTokenizerBase) -> Features:
        """Encode conversations by the chat template; keep the answer's text, and the lead of what is answered."""
        number = len(rows["text"])
        each = [{role: texts[row] for role, texts in rows.items()} for row in range(number)]
        asked = [self.framing.turns(self.layout, row) for row in each]
        answers = list(rows["target"]) if "target" in rows else None
        encoded = self._chat(tokenizer).encode(asked, answers)
        features = self._features(rows, encoded)
        if answers is not None:
            features |= {
                "learned": [row.learned for row in encoded],
                "answer_is_cut": [row.is_answer_cut for row in encoded],
                "control": self.control(asked, tokenizer),
                "reference": answers,
                "lead": [lead(turns[-1].text) for turns in asked],
            }
        return features

    def _features(self, rows: Rows, encoded: Sequence[Encoded]) -> Features:
        """Return what stands of every conversation, whether it is answered or not."""
        return {
            **({"id": list(rows["id"])} if "id" in rows else {}),
            "input_ids": [row.ids for row in encoded],
            "length": [len(row.ids) for row in encoded],
            "prompt_length": [row.prompt_length for row in encoded],
            "truncated": [row.is_cut for row in encoded],
        }

    def control(self, asked: Sequence[Turns], tokenizer: PreTrainedTokenizerBase) -> list[str]:
        """Return of each prompt a control token that stands in a text of its row; empty where none does."""
        tokens = sorted(self._chat(tokenizer).control_tokens(self.experiment.tokenizer.all_special_tokens))
        return [
            next((token for token in tokens if any(token in turn.text for turn in turns)), "")
            for turns in asked
        ]

    def tell_control_tokens(self, train: datasets.Dataset) -> None:
        """Tell of how many rows a text holds what the model reads as a control token, such as the end of a turn."""
        if found := [token for token in train["control"][:] if token]:
            self.notify(
                f"{len(found):,} of {len(train):,} prompts hold a control token in their text, such as {found[0]!r}: it is "
                "read as that token, and not as what a user typed"
            )

    def encoding_key(self) -> Mapping[str, Any]:
        """Return all settings of the tokenizer and the task; the chat template is a part of the tokenizer."""
        return {**super().encoding_key(), "family": "causal-4", "layout": self.layout}

    def batches(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> Conversations:
        """Pack rows, when the experiment wants it and the architecture keeps them apart, else pad them."""
        import torch

        from trainables.causal.packing import Conversations, way_to_pack

        # An export for CTranslate2 is no module: it only writes, after prompts that are never packed.
        packs = self.options.packing and isinstance(model, torch.nn.Module)
        way, bool_mask = way_to_pack(model) if packs else ("padded", True)
        return Conversations(int(tokenizer.pad_token_id or 0), way, bool_mask=bool_mask)

    def objective(self, model: PreTrainedModel, train: datasets.Dataset) -> TargetLosses:
        """Cross entropy over the tokens that are learned."""
        from trainables.causal.likelihood import TargetLosses

        return TargetLosses(self.experiment.objective.label_smoothing)

    def training_rows(self, train: datasets.Dataset) -> datasets.Dataset:
        """Pack rows when the batch counts tokens, and tell what a step sees and which answers are cut."""
        from trainables.causal.packing import packs_of

        tokenizer, training = self.experiment.tokenizer, self.experiment.training
        if cut := sum(train["answer_is_cut"][:]):
            self.notify(
                f"{cut:,} of {len(train):,} answers are longer than tokenizer.decoder_max_len="
                f"{tokenizer.decoder_max_len} tokens: they are learned up to there, and not to end there"
            )
        self.tell_control_tokens(train)
        packs = packs_of(train, self.options.pack_tokens) if self.options.batch_counts == "tokens" else train
        of_step = training.effective_batch_size
        rows = of_step * len(train) / len(packs)
        learned = numpy.mean([sum(end - begin for begin, end in row) for row in train["learned"][:]])
        counted = f"{of_step} packs of up to {self.options.pack_tokens:,} tokens: about {rows:.0f} rows"
        self.notify(
            f"a step sees {f'{of_step} rows' if packs is train else counted}, about "
            f"{rows * numpy.mean(train['length'][:]):,.0f} tokens, of which {rows * learned:,.0f} are learned"
        )
        return packs

    def load_exported(self, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Load what :meth:`export` saved; it generates as the experiment says, whatever was done to the folder since."""
        from transformers import AutoModelForCausalLM, GenerationConfig

        from dure.modeling.loading import set_generation
        from trainables.causal.template import saved_tokenizer

        model = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, generation_config=GenerationConfig()
        )
        tokenizer = saved_tokenizer(folder)
        set_generation(model, self.experiment, tokenizer)
        return self._ready(model, tokenizer, folder), tokenizer

    def know(self, model: Any) -> None:
        """Take the tokens that end its texts."""
        ends = model.generation_config.eos_token_id
        self._own_ends = frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])

    def _ready(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        source: str | Path | None,
        revision: str | None = None,
    ) -> PreTrainedModel:
        """Let a model end texts as the chat template does, count lengths from the prompt's end, and score targets."""
        from trainables.causal.likelihood import plain, score_targets
        from trainables.causal.template import own_ends

        said = self.experiment.generation
        self._own_ends = own_ends(plain(model), source, revision)
        plain(model).generation_config.update(
            max_length=None,
            max_new_tokens=said.max_length,
            min_length=None,
            min_new_tokens=said.min_length or None,
            eos_token_id=self._ends(tokenizer),
        )
        score_targets(model, smoothed=self.experiment.objective.label_smoothing > 0)
        return model

    def _ends(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Return all tokens that end a generated text."""
        return sorted({*self._chat(tokenizer).end_ids, *self._own_ends})

    def _chat(self, tokenizer: PreTrainedTokenizerBase) -> Chat:
        from trainables.causal.chat import Chat

        settings, mini = self.experiment.tokenizer, self.experiment.rehearsal
        is_capped = mini.enabled and settings.encoder_max_len == mini.max_encoder_len
        return Chat(
            tokenizer,
            learned=self.options.loss,
            max_prompt=settings.encoder_max_len,
            max_answer=settings.decoder_max_len,
            limit="rehearsal.max_encoder_len" if is_capped else "tokenizer.encoder_max_len",
            options=self.options.template_options,
        )

    def _layout(self) -> Layout:
        """Return how the tables hold conversations, by the columns that are named, or those of the training table."""
        data = self.experiment.data
        if self.options.rows != "auto":
            return self.options.rows
        named = data.columns.get("text")
        if data.train == SAMPLE or named is not None:
            return "dialogues" if named is None else recognised([str(named)]) or "pairs"
        try:
            return recognised(columns_of(data.train, data)) or "pairs"
        except UserError:
            # Told where tables are read; a run that came here without its training table predicts dialogues.
            return "dialogues"

    @property
    def answer(self) -> str:
        """Name of the column of predictions: that of the targets, where these have one of their own."""
        return "answer" if self.layout in CHATS else next(r.column for r in self.roles if r.name == "target")

    @property
    def markers(self) -> tuple[str, ...]:
        """What ROUGE takes as one word."""
        return (*super().markers, *self.options.rouge_markers)

    def _words(self, texts: Iterator[str]) -> Iterator[str]:
        """Give all that is said, which a rehearsal's tokenizer learns of."""
        around = () if self.layout in CHATS else (self.framing.prompt,)
        yield from filter(None, (self.options.system, *around))
        for text in texts:
            yield from self._said(text)

    def _said(self, text: str) -> Iterable[str]:
        """Return what is said in one text of the tables."""
        return (content for _, content in parsed(text)) if self.layout in CHATS else (text,)

    def written(self, ids: Any, tokenizer: PreTrainedTokenizerBase) -> tuple[list[str], list[int]]:
        """Return the texts of generated ids, each up to the first that ends it, and the numbers of their tokens.

        What the chat template itself begins answers with is no part of them.
        """
        chat, ends = self._chat(tokenizer), self._ends(tokenizer)
        rows = [chat.written(row, ends) for row in ids]
        return decoded(tokenizer, rows, self.experiment.tokenizer), [len(row) for row in rows]
