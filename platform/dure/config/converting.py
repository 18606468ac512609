"""From the keys of other systems to dure's: one key for an error, or a whole file for ``dure convert``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from dure.config.aliases import UNSAID, in_own_words, successor
from dure.config.scalars import NAME_PATTERN
from dure.config.schema import Experiment
from dure.config.sections import dotted_keys, has_key, in_order, may_be_null
from dure.config.tree import MAX_BYTES, plain, read_yaml
from dure.errors import UserError

KeyPath = tuple[str, ...]
FamilyOf = Callable[[Literal["logits", "text"], str], str]
"""Names the family of a file by what its models predict and everything that it says."""
MAX_NODES = 10_000
"""Most keys and values of a file, counted after its aliases were followed."""


class _OldLoader(yaml.SafeLoader):
    """Reads YAML as other systems do, but for dates, which are text in every key of theirs."""

    yaml_implicit_resolvers: dict[str, Any] = {  # noqa: RUF012 - PyYAML's own class attribute
        first: [each for each in known if each[0] != "tag:yaml.org,2002:timestamp"]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


@dataclass
class Converted:
    """What became of an old file."""

    values: dict[str, Any] = field(default_factory=dict)
    """Dotted key of an experiment to its value."""
    sources: dict[str, str] = field(default_factory=dict)
    """Dotted key to the old key that said it."""
    notes: list[str] = field(default_factory=list)
    """What has no successor, and what was taken for granted: one line each."""

    def put(self, key: str, value: Any, source: str) -> None:
        """Set a value, unless an earlier key said another; that is noted."""
        if key not in self.values:
            self.values[key], self.sources[key] = value, source
        elif self.values[key] != value:
            self.notes.append(f"{source}: {key} is {self.values[key]} already, as {self.sources[key]} says")

    def assume(self, key: str, value: Any, note: str) -> None:
        """Set what the old file does not say, with a note; what it says stays."""
        if key not in self.values:
            self.values[key], self.sources[key] = value, "assumed"
            self.notes.append(note)

    def tree(self) -> dict[str, Any]:
        """Return the values as sections within sections, in the schema's order."""
        return in_order(Experiment, self.values)


def read_old(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON file of another system, with the anchors and merge keys that it may use.

    Raises:
        UserError: It cannot be read, or holds no keys.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        old = yaml.load(content.decode("utf-8-sig"), _OldLoader) if len(content) <= MAX_BYTES else None  # noqa: S506
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        old = None
    # The reader of dure's own files says what is wrong, and where.
    found: dict[str, Any] = old if isinstance(old, dict) else plain(read_yaml(path))
    if sum(1 for _ in zip(_nodes(found), range(MAX_NODES), strict=False)) == MAX_NODES:
        raise UserError(
            f"it holds more than {MAX_NODES:,} keys and values", where=str(path), expected="a configuration"
        )
    return found


def _nodes(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _nodes(inner)


def convert(old: Mapping[str, Any], name: str, family_of: FamilyOf) -> Converted:
    """Return an old configuration in dure's keys.

    ``name`` is the experiment's, should the file give it none; ``family_of`` is as :func:`dure.family.family_of_old`.
    """
    result = Converted()
    leaves = sorted(_leaves(old), key=_rank)
    for path, value in leaves:
        _convert_key(result, path, value)
    _keep_one_warmup(result)
    said = {path[-1].lower(): value for path, value in leaves}
    _complete_lora(result, said)
    _choose_family(result, said, family_of)
    if said.get("wandb_project") and "tracking" not in result.values:
        result.assume("wandb.enabled", True, "wandb.enabled: true, since the old file names a project of W&B")
    given = str(result.values.setdefault("experiment.name", name))
    result.values["experiment.name"] = _as_name(given)
    if result.sources.setdefault("experiment.name", "assumed") == "assumed" or _as_name(given) != given:
        result.notes.append(f"experiment.name: {_as_name(given)}, since it is also the name of a folder")
    _name_tables(result)
    return result


def _leaves(tree: Mapping[str, Any], path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    for key, value in tree.items():
        inner = (*path, str(key))
        if (
            isinstance(value, dict)
            and not has_key(Experiment, inner, whole=True)
            and inner[-1] != "lr_scheduler_kwargs"
        ):
            yield from _leaves(value, inner)
        else:
            yield inner, value


_FIRST = ("eval_strategy", "evaluation_strategy", "eval_steps", "save_strategy", "save_steps")
"""Keys of which the earlier one decides when several say how often a run is validated."""


_SWITCHES = (
    "use_lora",
    "use_peft",
    "use_qlora",
    "use_unsloth",
    "adapter",
    "finetuning_type",
    "quantization_bit",
)
"""Keys that say whether a model gets adapters."""
_OFF = (None, False, "", "full", "freeze", 0)


def _rank(leaf: tuple[KeyPath, Any]) -> tuple[int, int]:
    """Return the place of a key among those that compete with it; others keep theirs."""
    key, value = leaf[0][-1].lower(), leaf[1]
    yields = (key in ("bf16", "fp16") and value is False) or key in (*_SWITCHES, "load_in_4bit", "use_4bit")
    return (1 if yields else 0, _FIRST.index(key) if key in _FIRST else len(_FIRST))


def _convert_key(result: Converted, path: KeyPath, value: Any) -> None:
    source = ".".join(path)
    if has_key(Experiment, path):
        _put_own(result, source, value, source)
        return
    found = successor(path, value)
    if found is None and value is None:
        return
    if found is None:
        elsewhere = [key for key in dotted_keys(Experiment) if _means(path, key)]
        if len(elsewhere) == 1:
            _put_own(result, elsewhere[0], value, source)
        else:
            result.notes.append(f"{source}: unknown to dure, left out")
    elif path[-1].lower() == "data_path" and isinstance(value, str):
        for split in ("train", "dev", "test"):
            result.put(f"data.{split}", f"{value.rstrip('/')}/{split}.csv", source)
    elif found.key is None:
        if value is not None:
            result.notes.append(f"{source}: {found.note}")
    elif value is None:
        return
    elif isinstance(found.value, dict) and found.key == "model.quantization":
        for part, default in found.value.items():
            result.values.setdefault(f"{found.key}.{part}", default)
    elif found.key == "model.quantization":
        for key in [key for key in result.values if key.startswith(found.key)]:
            del result.values[key]
    elif value is False and path[-1].lower() in ("bf16", "fp16") and found.key in result.values:
        return
    elif found.key == "training.best_metric" and found.value == value and not str(value).startswith("eval_"):
        result.put(found.key, f"eval_{value}", source)
    else:
        result.put(found.key, found.value, source)
        if found.note:
            result.notes.append(f"{source}: {found.key} now; {found.note}")


def _put_own(result: Converted, key: str, value: Any, source: str) -> None:
    """Set a key of dure's own; what says nothing there is what dure does by itself, unless null is a value of the key."""
    own = in_own_words(key, value)
    if own is not UNSAID and (own is not None or may_be_null(Experiment, key.split("."))):
        result.put(key, own, source)


def _means(path: KeyPath, key: str) -> bool:
    """Return whether a key of no known system is one of dure's that stands in another section.

    What many things have, such as a name, a type or a dropout, counts in a section of that thing's name alone.
    """
    *outer, name = path
    *sections, last = key.split(".")
    if name.lower() != last or not sections:
        return False
    section = sections[-1]
    words = ("lora", "peft", "adapter") if section == "lora" else (section,)
    return (
        section in _CLEAR
        or (not outer and section in _CLEAR_ALONE)
        or any(word in each.lower() for each in outer for word in words)
    )


_CLEAR = ("training", "objective", "tokenizer", "generation")
"""Sections whose keys mean the same wherever they stand."""
_CLEAR_ALONE = ("experiment", "model", "data")
"""Sections whose keys do where they stand in none."""


def _keep_one_warmup(result: Converted) -> None:
    """Keep the warm-up that Hugging Face's trainer took when both ways of saying it are there."""
    steps, ratio = (result.values.get(f"training.warmup_{kind}") for kind in ("steps", "ratio"))
    if steps is None or ratio is None:
        return
    gone = "ratio" if steps else "steps"
    result.notes.append(f"training.warmup_{gone}: left out, the other one decided")
    del result.values[f"training.warmup_{gone}"]


_TARGETS = {
    "t5": ("q", "v"),
    "bart": ("q_proj", "v_proj"),
    "bert": ("query", "value"),
    "causal": ("all-linear",),
}
"""Layers that get adapters where the old file does not say which."""
_CAUSAL = re.compile(
    r"causal|llama|qwen|gemma|exaone|mi[sx]tral|gpt|deepseek|falcon|kanana|smollm|olmo|polyglot|bloom|\bphi-?\d|\bopt-\d"
)
"""What decoder-only models, and their classes, are called."""


def _complete_lora(result: Converted, said: Mapping[str, Any]) -> None:
    """Give a LoRA section what it must have, or remove one that the old file had switched off."""
    switches = [said[key] not in _OFF for key in _SWITCHES if key in said]
    given = [key for key in result.values if key.startswith("lora.")]
    if switches and not any(switches):
        for key in given:
            del result.values[key]
        if given:
            result.notes.append("lora: left out, since the old file had it switched off")
        return
    quantized = result.values.get("model.quantization") or any(
        key.startswith("model.quantization.") for key in result.values
    )
    if not given and not any(switches) and not quantized:
        return
    result.assume("lora.rank", 16, "lora.rank: 16, which the old file does not say")
    rank = result.values["lora.rank"]
    if isinstance(rank, int):
        result.assume(
            "lora.alpha", 2 * rank, f"lora.alpha: {2 * rank}, twice the rank, which the old file does not say"
        )
    targets = list(_TARGETS[_kind(result, said)])
    result.assume("lora.targets", targets, f"lora.targets: {targets}, since the old file names no layers")


def _kind(result: Converted, said: Mapping[str, Any]) -> str:
    """Return the kind of model, as far as the names tell: a key of ``_TARGETS``."""
    checkpoint, architecture = (result.values.get(f"model.{key}") for key in ("checkpoint", "architecture"))
    named = f"{checkpoint} {architecture} {said.get('model_type')} {said.get('task_type')}".lower()
    kinds = ("bart", "bart"), ("t5", "t5"), ("bert", "bert|electra|seq_cls"), ("causal", _CAUSAL)
    return next((kind for kind, words in kinds if re.search(words, named)), "t5")


def _choose_family(result: Converted, said: Mapping[str, Any], family_of: FamilyOf) -> None:
    """Say which family the experiment is of, which old files never do."""
    writes = any(
        key in result.values
        for key in ("data.columns.target", "tokenizer.decoder_max_len", "generation.num_beams")
    )
    reads = "data.columns.label" in result.values or "objective.class_weights" in result.values
    kind = _kind(result, said)
    is_classifier = reads or (kind == "bert" and not writes)
    words = (kind, said.get("stage"), said.get("rl"), *result.values.values())
    family = family_of("logits" if is_classifier else "text", " ".join(map(str, words)))
    if is_classifier:
        result.values.setdefault("training.best_metric", "eval_macro_f1")
        length = result.values.pop("generation.max_length", None)
        if length is not None:
            result.put("tokenizer.encoder_max_len", length, result.sources["generation.max_length"])
    result.assume("family", family, f"family: {family}, by the model and the keys")


def _name_tables(result: Converted) -> None:
    if "data.train" not in result.values:
        result.notes.append(
            "data.train: not said, so the embedded sample corpus; give data.train=FILE data.dev=FILE"
        )
    elif "data.dev" not in result.values:
        result.assume(
            "data.dev", None, "data.dev: null, since no validation table is named: nothing is selected"
        )


def _as_name(text: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", text).lstrip("_.-")[:100]
    return name if re.fullmatch(NAME_PATTERN, name) else "converted"
