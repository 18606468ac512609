"""The wrong files that ``mistakes.py`` names: configurations, tables, and runs with something broken in them."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import torch
from safetensors.torch import load_file, save_file

from dure.runs.manifest import write_manifest

_MINE = "extends: transfer_bert\nexperiment: {name: mine}\n"
_PROFILE = "name: p\ndevice: cpu\n"
_SPACE = "parameters:\n  training.learning_rate: "

_YAML: dict[str, str | bytes] = {
    "tab.yaml": f"{_MINE}training:\n\tepochs: 3\n",
    "twice.yaml": f"{_MINE}lora: null\nlora: null\n",
    "emptied.yaml": f"{_MINE}training:\n  # epochs: 3\n",
    "dotted.yaml": f"{_MINE}training.epochs: 3\n",
    "shifted.yaml": f"{_MINE}training:\n  epochs: 3\n batch_size: 4\n",
    "colon.yaml": f"{_MINE}data:\n  train: a: b.csv\n",
    "bracket.yaml": f"{_MINE}data: {{train: [a\n",
    "anchor.yaml": f"{_MINE}training: &all {{epochs: 3}}\n",
    "bomb.yaml": f"{_MINE}a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n",
    "merge.yaml": f"{_MINE}training: {{<<: {{epochs: 3}}}}\n",
    "tag.yaml": f"{_MINE}task: !!python/object/apply:os.system [ls]\n",
    "deep.yaml": f"{_MINE}task: {'[' * 100_000}\n",
    "bell.yaml": f"{_MINE}task: \a\n",
    "two.yaml": f"{_MINE}---\n{_MINE}",
    "utf16.yaml": _MINE.encode("utf-16"),
    "cp949.yaml": f"{_MINE}# 설명\n".encode("cp949"),
    "empty.yaml": "",
    "list.yaml": "- a\n- b\n",
    "value.yaml": "hello\n",
    "large.yaml": f"{_MINE}# {'x' * (1 << 20)}\n",
    "number.yaml": f"{_MINE}1: x\n",
    "orphan.yaml": "extends: transfer_brt\n",
    "circle.yaml": "extends: ./ring.yaml\n",
    "ring.yaml": "extends: ./circle.yaml\n",
    "parent.yaml": "extends: [1]\n",
    "growing.yaml": "kind: progressive\nexperiment: transfer_bert\n",
    "strangers.yaml": "kind: batch\nname: s\nexperiments: [nobody]\n",
    "key.yaml": f"{_MINE}training: {{lerning_rate: 1}}\n",
    "hf.yaml": f"{_MINE}training:\n  per_device_train_batch_size: 6\n",
    "old_child.yaml": f"{_MINE}training:\n  per_device_train_batch_size: 6\n  num_train_epochs: 3\n",
    "no_model.yaml": "num_train_epochs: 3\n",
    "wrong_old.yaml": "model_name: t5-small\nnum_train_epochs: many\n",
    "section.yaml": f"{_MINE}learning_rate: 1\n",
    "missing.yaml": f"{_MINE}lora: {{rank: 8, alpha: 16}}\n",
    "yes.yaml": f"{_MINE}wandb: {{enabled: yes}}\n",
    "flat.yaml": f"{_MINE}training: 3\n",
    "nan.yaml": f"{_MINE}training: {{weight_decay: .nan}}\n",
    "bare_sweep.yaml": "kind: sweep\nname: s\n",
    "lost_space.yaml": "kind: sweep\nexperiment: transfer_bert\nspace: lerning_rate\n",
    "up.yaml": "kind: sweep\nexperiment: transfer_bert\nmetrics: [eval_loss:up]\n",
    "one_fold.yaml": "kind: crossval\nexperiments: [transfer_bert]\nfolds: 1\n",
    "nokind.yaml": "name: s\nexperiments: [transfer_bert]\n",
    "kind.yaml": "kind: bach\nname: s\nexperiments: [transfer_bert]\n",
    "nothing.yaml": "kind: batch\nname: s\nexperiments: []\n",
    "noparameters.yaml": "description: none\n",
    "upside.yaml": f"{_SPACE}{{type: uniform, low: 1, high: 0}}\n",
    "distribution.yaml": f"{_SPACE}{{type: normal, low: 0, high: 1}}\n",
    "seed.yaml": "parameters:\n  experiment.seed: {type: int, low: 0, high: 1}\n",
    "device.yaml": "name: p\ndevice: gpu\n",
    "gpus.yaml": "name: p\ndevice: cuda\n",
    "zero.yaml": f"{_PROFILE}deepspeed: zero9\n",
    "broken_zero.yaml": f"{_PROFILE}deepspeed: ./broken_zero.json\n",
    "broken_zero.json": "{",
    "zero_optimizer.yaml": f"{_PROFILE}deepspeed: ./zero_optimizer.json\n",
    "zero_optimizer.json": '{"zero_optimization": {"stage": 2}, "optimizer": {}}',
    "broken_code.py": "def (:\n",
    "needs_more.py": "import nothere\n",
}

_DIALOGUE = 'a{0},"#Person1#: 안녕 {0}\n#Person2#: 네, {0}",인사 {0}\n'
_DIALOGUES = "fname,dialogue,summary\n"
_REVIEWS = "text,label\n" + "".join(f"글 {n},{'긍정' if n % 2 else '부정'}\n" for n in range(12))

_TABLES: dict[str, str | bytes] = {
    "good.csv": _DIALOGUES + "".join(_DIALOGUE.format(number) for number in range(8)),
    "good_dev.csv": _DIALOGUES + "".join(_DIALOGUE.format(number) for number in range(20, 23)),
    "cut.csv": _DIALOGUES + 'a,안녕,인사\nb,"끝없는',
    "plain.csv": "summary\n인사\n",
    "text.docx": "x",
    "headless.tsv": "one long string of cliches\t0\nthis is a very good film\t1\n",
    "cat.csv": "text,label\na,b\ntext,label\nc,d\n",
    "unseen.csv": "text,label\na,b\n\u200b\ufeff,c\n",
    "cut.json": '[{"text": "a", "label": "b"},\n{"text": "c"',
    "packed.csv.gz": gzip.compress(_REVIEWS.encode(), mtime=0),
    "gzip.csv": gzip.compress(_REVIEWS.encode(), mtime=0),
    "workbook.csv": b"PK\x03\x04workbook",
    "reviews.csv": _REVIEWS,
    "reviews_dev.csv": "text,label\n새 글,긍정\n또 글,부정\n",
    "unknown.csv": "text,label\n새 글,중립\n또 글,부정\n",
    "zero.csv": "",
    "header.csv": "text,label\n",
    "semicolon.csv": "text;label\na;b\n",
    "doubled.csv": "text,text,label\na,b,c\n",
    "unclosed.csv": 'text,label\na,b\n"c,d\ne,f\n',
    "after.csv": 'text,label\n"a"b,c\n',
    "ragged.csv": "text,label\na,b\nc,d,e\n",
    "hole.csv": "text,label\na,b\n,c\n",
    "nan.csv": "text,label\nnan,b\n",
    "blank.csv": "text,label\n,b\n  ,c\n",
    "nul.csv": b"text,label\na,b\nc\0,d\n",
    "bytes.csv": "text,label\n가,나\n".encode() + b"\xff\xfe,x\n",
    "mixed.csv": "text,label\n가나다라,나\n".encode() + "마바사,나\n".encode("cp949"),
    "utf16.csv": _REVIEWS.encode("utf-16"),
    "ids.csv": "id,text,label\na,b,c\na,d,e\n",
    "document.jsonl": '[\n{"text": "a", "label": "b"}\n]\n',
    "broken.jsonl": '{"text": "a", "label": "b"}\n{"text": "c"\n',
    "nested.jsonl": '{"text": ["a"], "label": "b"}\n',
    "junk.parquet": b"PAR1junk",
    "one.csv": "text,label\n" + "".join(f"글 {number},긍정\n" for number in range(9)),
    "few.csv": "text,label\n글,긍정\n말,부정\n",
}


def _parquet(texts: pyarrow.Array) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": texts, "label": ["a"] * len(texts)}), file)
    return file.getvalue()


def _not_utf8() -> pyarrow.Array:
    ends = pyarrow.py_buffer(
        (0).to_bytes(4, "little") + (2).to_bytes(4, "little") + (4).to_bytes(4, "little")
    )
    return pyarrow.Array.from_buffers(pyarrow.string(), 2, [None, ends, pyarrow.py_buffer(b"ok\xe9\xe8")])


def make_files(folder: Path) -> None:
    """Write configurations and tables."""
    whole = _parquet(pyarrow.array(["a", "b"]))
    made = {
        "half.parquet": whole[: len(whole) // 2],
        "binary.parquet": _parquet(pyarrow.array([b"a", b"b"])),
        "latin.parquet": _parquet(_not_utf8()),
    }
    for name, content in {**_YAML, **_TABLES, **made}.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    for name in ("sub", "folder.yaml", "mine"):
        (folder / name).mkdir()
    (folder / "unified").mkdir()
    (folder / "unified" / "study.yaml").write_text("kind: unified\nname: mine\nexperiment: red_heart_tiny\n")
    (folder / "mine" / "train.csv").write_text("mine")
    os.mkfifo(folder / "pipe.csv")


class _Code:
    """What a pickle can hold that is no data: loading it would leave a file behind."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("executed",)


def _cut(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def _resized(file: Path) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), "hidden_size": 64}))


def _no_vocabulary(run: Path) -> None:
    for file in (run / "final_model").glob("token*"):
        file.unlink()


def _two_models(run: Path) -> None:
    for number, name in enumerate("ab", start=1):
        torch.save({"model_state": {name: torch.ones(1)}}, run / f"epoch_{number}.pt")


def _held(lock: Path) -> None:
    named = {
        "host": "elsewhere",
        "space": "",
        "pid": 4711,
        "born": 1.0,
        "since": "now",
        "command": "x",
        "token": "t",
    }
    lock.write_text(json.dumps(named))


def _other_rows(file: Path) -> None:
    environment = json.loads(file.read_text())
    file.write_text(json.dumps({**environment, "data": {**environment["data"], "train": "0" * 64}}))


def _with_weights(run: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the weights of the final model, as if they had been saved so."""
    file = run / "final_model" / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})
    write_manifest(run / "final_model")


def _not_a_number(weights: dict[str, torch.Tensor]) -> None:
    weights[sorted(weights)[0]].view(-1)[0] = float("nan")


def _family(run: Path, line: str) -> None:
    file = run / "experiment.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("family: trainables.transfer\n", line), encoding="utf-8")


def _linked(folder: Path) -> None:
    elsewhere = folder.with_name(".elsewhere")
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere.name)


BROKEN_RUNS: dict[str, Callable[[Path], object]] = {
    "no_experiment": lambda run: (run / "experiment.yaml").unlink(),
    "broken_experiment": lambda run: (run / "experiment.yaml").write_text("a: ["),
    "no_final": lambda run: shutil.rmtree(run / "final_model"),
    "cut_weights": lambda run: _cut(run / "final_model" / "model.safetensors"),
    "no_weights": lambda run: (run / "final_model" / "model.safetensors").unlink(),
    "other_weights": lambda run: _resized(run / "final_model" / "config.json"),
    "broken_config": lambda run: (run / "final_model" / "config.json").write_text("{"),
    "nan_weights": lambda run: _with_weights(run, _not_a_number),
    "lacking_weights": lambda run: _with_weights(run, lambda weights: weights.pop(sorted(weights)[0])),
    "foreign_code": lambda run: _family(run, "family: needs_more\n"),
    "leading_away": lambda run: _family(run, "family: trainables.transfer\nextends: ../key.yaml\n"),
    "deep_result": lambda run: (run / "result.json").write_text("[" * 100_000),
    "linked_model": lambda run: _linked(run / "final_model"),
    "no_vocabulary": _no_vocabulary,
    "junk_epoch": lambda run: (run / "epoch_1.pt").write_bytes(b"junk"),
    "code_epoch": lambda run: torch.save({"model_state": _Code()}, run / "epoch_1.pt"),
    "two_models": _two_models,
    "broken_result": lambda run: (run / "result.json").write_text("{"),
    "other_result": lambda run: (run / "result.json").write_text('{"name": "a", "state": "finished"}'),
    "broken_metrics": lambda run: (run / "metrics.jsonl").write_text("{\n{}\n{}\n"),
    "other_metrics": lambda run: (run / "metrics.jsonl").write_text('{"loss": 1}\n'),
    "held": lambda run: _held(run / ".dure.lock"),
    "other_rows": lambda run: _other_rows(run / "environment.json"),
    "no_checkpoints": lambda run: [shutil.rmtree(each) for each in run.glob("checkpoint-*")],
    "no_metrics": lambda run: (run / "metrics.jsonl").unlink(),
}
"""What is done to a copy of a finished run."""

BROKEN_SWEEPS: dict[str, tuple[str | None, str | None]] = {
    "begun": (None, None),
    "torn": (None, "{"),
    "dated": ("kind: sweep\nname: 2020-99-99\nmetrics: [{name: eval_loss, direction: min}]\n", None),
}
"""``study.yaml`` (that of a real sweep where it is None) and ``experiment_summary.json`` of a sweep's folder."""
