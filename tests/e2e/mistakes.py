"""Wrong inputs, one a row: the command, then what its message must say: the place, and what is right or to be done.

Rows are sorted by what is wrong: configuration, data, checkpoints, options, environment. The files that they name are
made by ``mistaken_files.py``. ``TRAIN`` is a rehearsal of a tiny summariser, ``CLASSIFY`` one of a tiny classifier.
"""

from __future__ import annotations

from .conftest import TINY

Row = tuple[str, str, str]
TRAIN = f"train kobart_baseline --rehearse --profile cpu {' '.join(TINY)}"
CLASSIFY = f"train transfer_bert --rehearse --profile cpu {' '.join(TINY)}"
RESUME = f"{CLASSIFY} --resume --output"
DRY = "train transfer_bert --dry-run"
SWEEP = "sweep transfer_bert --dry-run"
GROW = "progressive transfer_bert --dry-run"

CONFIG: dict[str, Row] = {
    # YAML itself
    "tab": ("train tab.yaml", "tab.yaml:4", "indented with spaces"),
    "key given twice": ("train twice.yaml", "twice.yaml:4", "given twice"),
    "unclosed bracket": ("train bracket.yaml", "bracket.yaml:4", "']'"),
    "section of which all is commented out": (
        "train emptied.yaml",
        "emptied.yaml:3: section 'training' is empty here",
        "leave the line out",
    ),
    "dotted key": ("train dotted.yaml", "dotted.yaml:3", "try: 'training: {epochs: …}'"),
    "indented between": ("train shifted.yaml", "shifted.yaml:5", "this line is indented otherwise"),
    "colon in a text": ("train colon.yaml", "colon.yaml:4", "put a text with a colon in quotes"),
    "anchor": ("train anchor.yaml", "anchor.yaml:3", "extends:"),
    "bomb of aliases": ("train bomb.yaml", "bomb.yaml:3", "extends:"),
    "merge key": ("train merge.yaml", "merge.yaml:3", "extends:"),
    "code in a tag": ("train tag.yaml", "tag.yaml:3", "tags (!!python/object/apply:os.system) are not read"),
    "bottomless nesting": ("train deep.yaml", "deep.yaml:3", "32 deep"),
    "control character": ("train bell.yaml", "bell.yaml:3", "U+0007"),
    "two documents": ("train two.yaml", "two.yaml:3", "single document"),
    "UTF-16": ("train utf16.yaml", "utf16.yaml:1", "save the file as UTF-8"),
    "CP949": ("train cp949.yaml", "cp949.yaml:3", "save the file as UTF-8"),
    "empty file": ("train empty.yaml", "empty.yaml", "keys and values"),
    "list": ("train list.yaml", "list.yaml", "keys and values"),
    "one value": ("train value.yaml", "value.yaml", "keys and values"),
    "too large": ("train large.yaml", "large.yaml", "larger than 1024 KiB"),
    "number as key": ("train number.yaml", "number.yaml:3", "in quotes"),
    "folder": ("train folder.yaml", "'folder.yaml'", "no experiment file"),
    # extends
    "missing parent": ("train orphan.yaml", "orphan.yaml:1", "transfer_bert"),
    "circle": ("train circle.yaml", "ring.yaml:1", "circle.yaml → ring.yaml → circle.yaml"),
    "parent that is no text": ("train parent.yaml", "parent.yaml:1", "a file, a name, or a list"),
    # names
    "unknown experiment": ("train kobart_basline", "'kobart_basline'", "try: kobart_baseline"),
    "model as an experiment": ("train klue/bert-base", "'klue/bert-base'", "model.checkpoint=klue/bert-base"),
    "model without an owner": ("train gpt2", "'gpt2'", "as in transfer_bert model.checkpoint=gpt2"),
    "constant of an old script": (f"{DRY} BATCH_SIZE=16", "'BATCH_SIZE'", "try: training.batch_size=16"),
    "size of a model": (
        f"{DRY} num_layers=18",
        "'num_layers'",
        "leave it out; the checkpoint says how large",
    ),
    "unknown file": ("train nope/none.yaml", "nope/none.yaml", "no experiment file"),
    "file of another system": ("train configs/base/default.yaml", "no experiment file", "try: dure list"),
    "unknown study": ("batch sevn", "'sevn'", "try: seven"),
    "unknown space": ("sweep transfer_bert --space lerning_rate", "'lerning_rate'", "try: learning_rate"),
    "unknown profile": (f"{TRAIN} --profile rtx309", "'rtx309'", "try: rtx3090"),
    "unknown experiment of a study": ("batch strangers.yaml", "strangers.yaml:", "no experiment 'nobody'"),
    # keys
    "unknown key": ("train key.yaml", "key.yaml:3", "try: 'training.learning_rate'"),
    "key of another section": ("train section.yaml", "section.yaml:3", "try: 'training.learning_rate'"),
    "key of Hugging Face": ("train hf.yaml", "hf.yaml:4", "training: {batch_size: 6}"),
    "override in Hugging Face's words": (
        f"{DRY} per_device_train_batch_size=6",
        "'per_device_train_batch_size'",
        "try: training.batch_size=6",
    ),
    "override of an old section": (f"{DRY} qlora.lora_rank=48", "'qlora.lora_rank'", "try: lora.rank=48"),
    "old key without successor": (f"{DRY} optim=adamw_torch", "'optim'", "leave it out; AdamW"),
    "conversion over a file": ("convert hf.yaml -o key.yaml", "key.yaml", "--force"),
    "conversion into itself": ("convert hf.yaml -o hf.yaml --force", "hf.yaml", "another name"),
    "conversion of a child": (
        "convert old_child.yaml -o out.yaml",
        "old_child.yaml: extends: it extends another file",
        "try: dure train old_child.yaml --dry-run",
    ),
    "conversion without a model": (
        "convert no_model.yaml -o new.yaml",
        "no_model.yaml",
        "model.checkpoint=NAME",
    ),
    "conversion of a wrong value": (
        "convert wrong_old.yaml -o new.yaml",
        "num_train_epochs",
        "a whole number",
    ),
    "conversion to no YAML": ("convert hf.yaml -o new.txt", "--output", ".yaml"),
    "conversion of nothing": ("convert none.yaml -o new.yaml", "none.yaml", "cannot be read"),
    "missing key": ("train missing.yaml", "missing.yaml:3", "'lora.targets' is missing"),
    "unknown override": (f"{DRY} training.lerning_rate=1", "command line", "try: training.learning_rate=1"),
    "override without value": (f"{DRY} rehearse", "'rehearse'", "section.key=value"),
    "override without key": (f"{DRY} =1", "'=1'", "section.key=value"),
    "override that is no YAML": (f"{DRY} lora.targets=[q", "lora.targets=[q", "']'"),
    "override below a value": (f"{DRY} training.epochs.x=1", "training.epochs", "a whole number"),
    "override with slashes": (f"{DRY} training/epochs=3", "'training/epochs'", "try: training.epochs=3"),
    "override in brackets": (f"{DRY} data.train=[x].csv", "data.train=[x].csv", """'data.train="[x].csv"'"""),
    "override with dashes": (
        f"{DRY} --training.learning_rate=1",
        "--training.learning_rate",
        "try: training.learning_rate=1",
    ),
    "override of no end": (f"{DRY} {'a.' * 5000}a=1", "command line", "section.key=value"),
    "objective that a family refuses": (
        f"{DRY.replace('transfer_bert', 'causal_qwen')} objective.r_drop=1",
        "objective.r_drop: R-Drop",
        "try: objective.r_drop=0",
    ),
    # types and values
    "text for a number": (f"{DRY} training.learning_rate=fast", '"fast"', "a number"),
    "word for a truth value": ("train yes.yaml", "yes.yaml:3", "true or false"),
    "number for a truth value": (f"{DRY} wandb.enabled=1", "wandb.enabled", "true or false"),
    "list for a section": (f"{DRY} training=[1]", "'training'", "keys and values"),
    "value for a section": ("train flat.yaml", "flat.yaml:3", "keys and values"),
    "value for a list": (f"{DRY} experiment.tags=a", "experiment.tags", "try: [a]"),
    "NaN": ("train nan.yaml", "nan.yaml:3", "a number"),
    "infinite": (f"{DRY} training.weight_decay=1e999", "training.weight_decay=1e999", "beyond all bounds"),
    "huge": (f"{DRY} training.epochs=1e30", "training.epochs", "up to 1,000,000,000,000,000"),
    "negative": (f"{DRY} training.batch_size=-8", "training.batch_size", "at least 1"),
    "zero": (f"{DRY} training.learning_rate=0", "training.learning_rate", "more than 0"),
    "fraction of a count": (f"{DRY} training.epochs=2.5", "training.epochs", "a whole number"),
    "ratio above one": (f"{DRY} data.train_ratio=110%", "data.train_ratio", "up to 1"),
    "unknown choice": (f"{DRY} training.scheduler=cosin", "training.scheduler", "try: cosine"),
    "path as a name": (f"{DRY} experiment.name=../a", "experiment.name", "the first a letter or digit"),
    "name of a final model": (f"{DRY} experiment.name=final_model", "experiment.name", "another name"),
    "name of a checkpoint": (f"{DRY} experiment.name=checkpoint-5", "experiment.name", "another name"),
    "name of a device": (f"{DRY} experiment.name=CON", "experiment.name", "another name"),
    "name of a record": (f"{DRY} experiment.name=result.json", "experiment.name", "another name"),
    "unknown encoding": (f"{DRY} data.encoding=klingon", "data.encoding", "utf-8 or cp949"),
    "two warm-ups": (
        f"{DRY} training.warmup_steps=5 training.warmup_ratio=0.1",
        "'training'",
        "warmup_steps or warmup_ratio",
    ),
    "heads that do not fit": (f"{DRY} rehearsal.hidden_size=30", "'rehearsal'", "a multiple of num_heads 4"),
    "miniature of no end": (f"{DRY} rehearsal.vocab_size=1e12", "rehearsal.vocab_size", "at most 200000"),
    "4-bit without LoRA": ("train kobart_baseline lora=null", "model.quantization", "needs a lora section"),
    "fold that is none": (f"{DRY} data.fold.number=6 data.fold.of=5", "data.fold", "no fold 6 of 5"),
    # families
    "family that is not there": (f"{DRY} family=trainables.nope", "family", "run from the folder"),
    "module without a family": (f"{DRY} family=os", "family", "exactly one subclass of Family"),
    "family of broken code": (f"{DRY} family=broken_code", "broken_code.py, line 1", "correct the module"),
    "family that needs more": (f"{DRY} family=needs_more", "needs_more.py:1", "nothere"),
    "unknown option of a family": (
        "train kobart_baseline --dry-run task.rouge_tokeniser=default",
        "task",
        "rouge_tokenizer",
    ),
    "wrong option of a family": (
        "train kobart_baseline --dry-run task.rouge_tokenizer=english",
        "task",
        "morpheme",
    ),
    "target of an unknown metric": (
        f"{DRY} targets.eval_macrof1=0.9",
        "targets.eval_macrof1",
        "try: eval_macro_f1",
    ),
    "target in percent": (
        f"{DRY} targets.eval_macro_f1=94",
        "targets.eval_macro_f1",
        "try: targets.eval_macro_f1=0.94",
    ),
    "no target to require": (
        f"{CLASSIFY} --require-targets",
        "--require-targets",
        "try: targets.eval_macro_f1=VALUE",
    ),
    "unknown metric": (
        f"{DRY} training.best_metric=eval_acuracy",
        "training.best_metric",
        "try: eval_accuracy",
    ),
    "direction against the metric": (
        f"{DRY} training.best_metric=eval_loss training.higher_is_better=true",
        "training.higher_is_better",
        "lower is better",
    ),
    # studies, spaces, profiles
    "study of no kind": ("batch nokind.yaml", "nokind.yaml", "one of: batch"),
    "study of another kind": ("batch kind.yaml", "kind.yaml:1", "try: batch"),
    "kind of another verb": ("batch growing_bert", "growing_bert", "try: dure run growing_bert"),
    "study that is none": ("run sevn", "'sevn'", "try: seven"),
    "sweep without an experiment": ("run bare_sweep.yaml", "bare_sweep.yaml", "'experiment' is missing"),
    "sweep of an unknown space": ("run lost_space.yaml", "'lerning_rate'", "try: learning_rate"),
    "sweep for a metric of no direction": ("run up.yaml", "up.yaml:3", "NAME:min"),
    "folds that are none": ("run one_fold.yaml", "one_fold.yaml:3", "at least 2"),
    "study without experiments": ("batch nothing.yaml", "nothing.yaml:3", "a list of at least 1"),
    "space without parameters": (
        f"{SWEEP} --space noparameters.yaml",
        "noparameters.yaml",
        "'parameters' is missing",
    ),
    "range upside down": (f"{SWEEP} --space upside.yaml", "upside.yaml:2", "not below"),
    "range of an unknown kind": (
        f"{SWEEP} --space distribution.yaml",
        "distribution.yaml:2",
        "log_uniform, uniform",
    ),
    "search of the seed": (f"{SWEEP} --space seed.yaml", "experiment.seed", "cannot be searched"),
    "unknown device": (f"{TRAIN} --profile device.yaml", "device.yaml:2", "cpu, cuda or mps"),
    "GPU trial without GPUs": (f"{TRAIN} --profile gpus.yaml", "gpus.yaml", "needs more than 0"),
    "missing DeepSpeed file": (f"{TRAIN} --profile zero.yaml", "zero.yaml: deepspeed", "zero2"),
    "broken DeepSpeed file": (f"{TRAIN} --profile broken_zero.yaml", "broken_zero.json", "no JSON"),
    "DeepSpeed with an optimizer": (
        f"{TRAIN} --profile zero_optimizer.yaml",
        "zero_optimizer.json",
        "leave it out",
    ),
}

REAL = "data.train=good.csv data.dev=good_dev.csv"
REVIEWS = "data.train=reviews.csv data.dev=reviews_dev.csv"
CUT = "crossval transfer_bert --rehearse data.dev=null data.train="
SCORE = "score good.csv good.csv"

DATA: dict[str, Row] = {
    # the file
    "missing table": (f"{TRAIN} data.train=none.csv data.dev=null", "data.train=none.csv", "no such file"),
    "table of a like name": (f"{TRAIN} data.train=god.csv data.dev=null", "data.train=god.csv", "is good.csv meant?"),
    "missing table of a batch": (
        "batch seven --rehearse data.train=none.csv data.dev=none.csv",
        "data.train=none.csv",
        "no such file",
    ),
    "name that is too long": (f"{TRAIN} data.train={'a' * 300}.csv data.dev=null", "data.train=aaa", "File name too long"),
    "train without dev": (f"{TRAIN} data.train=good.csv", "data.dev", "data.dev=FILE"),
    "folder for a table": (f"{TRAIN} data.train=sub data.dev=sub", "data.train=sub", "a file"),
    "pipe for a table": (f"{TRAIN} data.train=pipe.csv data.dev=null", "data.train=pipe.csv", "a file"),
    "unknown format": (f"{TRAIN} data.train=text.docx data.dev=null", "data.train=text.docx", ".csv"),
    "packed": (f"{TRAIN} data.train=packed.csv.gz data.dev=null", "packed.csv.gz", "gzip -dk packed.csv.gz"),
    # found by crossval, sweep and progressive before they start, by the reader that training has
    "packed under another name": (f"{CUT}gzip.csv", "gzip.csv", "packed by gzip"),
    "workbook under another name": (f"{CUT}workbook.csv", "workbook.csv", ".xlsx"),
    "empty table": (f"{CUT}zero.csv", "zero.csv", "column names and rows"),
    "column names only": (f"{CUT}header.csv", "header.csv", "at least one row"),
    "missing column": (f"{CUT}good.csv", "good.csv", "data.columns.text="),
    "semicolons": (f"{CUT}semicolon.csv data.columns.text=txt", "semicolon.csv", "text, label"),
    "row for column names": (f"{CUT}headless.tsv", "headless.tsv", "data.header=false"),
    "column by name without names": (f"{CUT}headless.tsv data.header=false", "headless.tsv", "data.columns.text=0"),
    "column names once more": (f"{CUT}cat.csv", "cat.csv, row 2 (line 3)", "data.train=[a.csv, b.csv]"),
    "text of nothing that is seen": (f"{CUT}unseen.csv", "unseen.csv, row 2 (line 3)", "data.on_bad_row=skip"),
    "name of the hub": (f"{CUT}hf://datasets/a/b/c.csv", "hf://datasets/a/b/c.csv", "hf download a/b"),
    "pattern of no file": (f"{CUT}none*.csv", "none*.csv", "no file matches"),
    "file named twice": (f"{CUT}[reviews.csv,./reviews.csv]", "reviews.csv", "name it once"),
    "one of several files missing": (f"{CUT}[reviews.csv,none.csv]", "none.csv", "no such file"),
    "quotes of another kind": (f"{CUT}reviews.csv data.quoting=some", "data.quoting", "minimal or none"),
    "several columns for a class": (f"{CUT}reviews.csv data.columns.label=[label,text]", "data.columns.label", "one column"),
    "JSON array cut off": (f"{CUT}cut.json", "cut.json, line 2", "correct that place"),
    "doubled column": (f"{CUT}doubled.csv", "doubled.csv", "rename all but the one"),
    "one column for two roles": (f"{CUT}reviews.csv data.columns.text=label", "data.columns.text", "a column for each"),
    "unknown role": (f"{CUT}reviews.csv data.columns.txt=text", "data.columns.txt", "try: data.columns.text"),
    "unclosed quote": (f"{CUT}unclosed.csv", "unclosed.csv, row 2 (line 3)", "doubled"),
    "text after a quote": (f"{CUT}after.csv", "after.csv, row 1 (line 2)", "doubled"),
    "ragged row": (f"{CUT}ragged.csv", "ragged.csv, row 2 (line 3)", "data.on_bad_row=skip"),
    "empty cell": (f"{CUT}hole.csv", "hole.csv, row 2 (line 3)", "data.on_bad_row=skip"),
    "missing value as a word": (f"{CUT}nan.csv", "nan.csv, row 1", "data.on_bad_row=skip"),
    "no text at all": (f"{CUT}blank.csv data.on_bad_row=skip", "blank.csv", "data.on_bad_row=error"),
    "NUL byte": (f"{CUT}nul.csv", "nul.csv, line 3", "tr -d"),
    "unreadable byte": (f"{CUT}bytes.csv", "bytes.csv, line 3", "correct that line"),
    "two encodings": (f"{CUT}mixed.csv", "mixed.csv, line 3", "data.encoding"),
    "UTF-16 table": (f"{CUT}utf16.csv", "utf16.csv", "data.encoding=utf-16"),
    "another encoding than told": (f"{CUT}reviews.csv data.encoding=ascii", "reviews.csv, line 2", "data.encoding"),
    "doubled id": (
        f"{CUT}ids.csv data.columns.id=id",
        "ids.csv, row 2 (line 3)",
        "repeats the id 'a' of row 1",
    ),
    "JSON document": (f"{CUT}document.jsonl", "document.jsonl, row 1 (line 1)", "JSON lines, not one JSON document"),
    "broken JSON line": (f"{CUT}broken.jsonl", "broken.jsonl, row 2 (line 2)", "data.on_bad_row=skip"),
    "list for a text": (f"{CUT}nested.jsonl", "nested.jsonl, row 1 (line 1)", "not text"),
    "junk for Parquet": (f"{CUT}junk.parquet", "junk.parquet", "copy or write the file again"),
    "Parquet cut in half": (f"{CUT}half.parquet", "half.parquet", "copy or write the file again"),
    "Parquet of bytes": (f"{CUT}binary.parquet", "binary.parquet: column 'text'", "in pandas"),
    "Parquet that is no UTF-8": (f"{CUT}latin.parquet", "latin.parquet, row 2", "write the file again"),
    # what the rows say
    "one class": (f"{CUT}one.csv", "one.csv, role 'label'", "at least two classes"),
    "too few texts for the folds": (f"{CUT}few.csv", "few.csv", "at least 5 different texts"),
    "other rows for each experiment": (
        "crossval transfer_bert kobert_emotion --dry-run",
        "dure crossval",
        "data.train=FILE",
    ),
    "unreadable table": (f"{TRAIN} data.train=cut.csv data.dev=good_dev.csv", "cut.csv, row 2", "quote"),
    "class of dev only": (f"{CLASSIFY} data.train=reviews.csv data.dev=unknown.csv", "unknown.csv, role 'label'", "one of 긍정, 부정"),
    "empty dev": (f"{CLASSIFY} data.train=reviews.csv data.dev=header.csv", "header.csv", "at least one row"),
    # tables of other verbs
    "prediction of another table": ("predict RUN good.csv -o o.csv --profile cpu", "good.csv", "data.columns.text="),
    "prediction of no table into nothing": ("predict RUN goood.csv --profile cpu", "goood.csv", "is good.csv meant?"),
    "prediction of no table": ("predict RUN goood.csv -o o.csv --profile cpu", "goood.csv", "is good.csv meant?"),
    "evaluation without targets": ("evaluate RUN plain.csv --profile cpu", "plain.csv", "data.columns."),
    "evaluation of no table": ("evaluate RUN goood.csv --profile cpu", "goood.csv", "is good.csv meant?"),
    "part that is all": (f"{CLASSIFY} data.train=reviews.csv data.dev=100%", "'data.dev'", "such as 10%"),
    "parts that are all": (f"{CLASSIFY} data.train=reviews.csv data.dev=50% data.test=50%", "'data'", "no row trains"),
    "score by no metric": (f"{SCORE} --metric no_such_metric", "--metric", "spaces/evaluate-metric/"),
    "score without files": ("score none.csv good.csv", "none.csv", "no such file"),
    "score of other ids": ("score good_dev.csv good.csv", "good.csv", "ids are not in"),
    "score without the id": ("score plain.csv good.csv", "plain.csv", "--id-column"),
    "score without predictions": (f"{SCORE} --prediction-column sumary", "'sumary'", "--prediction-column=summary"),
    "score with a column too many": (
        f"{SCORE} --reference-columns summary,topic", "'topic'", "--reference-columns=",
    ),
    "score of no column": (f"{SCORE} --reference-columns ,", "--reference-columns", "column names, with commas"),
    "score of a column twice": (
        f"{SCORE} --reference-columns summary,summary", "--reference-columns", "each column once",
    ),
    "score of two classes": (
        f"{SCORE} --task classification --reference-columns summary,dialogue", "--reference-columns", "one column",
    ),
}  # fmt: skip

FOUND_BY_THE_RUN: dict[str, Row] = {
    # known only once the run has cut its rows or builds its model: the run is recorded as failed
    "dev is train": (f"{CLASSIFY} data.train=reviews.csv data.dev=reviews.csv", "data.train (reviews.csv)", "give another table"),
    "LoRA target without a layer": (f"{TRAIN} {REAL} lora.targets=[q_prj]", "lora.targets", "q_proj"),
}  # fmt: skip

CHECKPOINTS: dict[str, Row] = {
    "no folder of a model": ("train kobart_baseline --profile cpu model.checkpoint=./nowhere", "model.checkpoint", "model hub"),
    "no model in the folder": ("train kobart_baseline --profile cpu model.checkpoint=sub", "model.checkpoint", "config.json"),
    # the folder of a run
    "no run": ("predict nowhere reviews.csv -o o.csv --profile cpu", "nowhere", "final_model/"),
    "no run to export": ("export nowhere --to out --profile cpu", "nowhere", "final_model/"),
    "weights of no run": ("export good.csv --to out --profile cpu", "good.csv", "a file of weights in it"),
    "export onto a run": ("export RUN --to good.csv --profile cpu", "--to good.csv", "a new or empty folder"),
    "packed numbers of another format": (
        "export RUN --to out --quantization int8 --profile cpu", "--quantization", "--format ctranslate2",
    ),
    "adapters of a miniature": ("export RUN --to out --format adapter --profile cpu", "--format adapter", "--format transformers"),
    "no experiment.yaml": ("predict no_experiment reviews.csv -o o.csv --profile cpu", "no_experiment", "experiment.yaml"),
    "broken experiment.yaml": (
        "predict broken_experiment reviews.csv -o o.csv --profile cpu", "broken_experiment/experiment.yaml:1", "YAML",
    ),
    "no final model": ("predict no_final reviews.csv -o o.csv --profile cpu", "no_final", "final_model/"),
    "fold of no cross-validation": ("predict RUN reviews.csv -o o.csv --fold 1 --profile cpu", "--fold", "a cross-validation"),
    "sweet spot of no run": ("sweet-spot nowhere", "nowhere", "final_model/"),
    "crossover of no run": ("crossover nowhere --profile cpu", "nowhere", "final_model/"),
    # weights
    "truncated weights": (
        "predict cut_weights reviews.csv -o o.csv --profile cpu", "cut_weights/final_model", "copy it again",
    ),
    "missing weights": ("predict no_weights reviews.csv -o o.csv --profile cpu", "no_weights/final_model", "model.safetensors"),
    "weights of another model": (
        "predict other_weights reviews.csv -o o.csv --profile cpu", "other_weights/final_model", "copy it again",
    ),
    "broken config.json": ("predict broken_config reviews.csv -o o.csv --profile cpu", "broken_config/final_model", "config.json"),
    "weights with NaN": ("predict nan_weights reviews.csv -o o.csv --profile cpu", "nan_weights/final_model", "not finite"),
    "a weight too few": ("predict lacking_weights reviews.csv -o o.csv --profile cpu", "lacking_weights/final_model", "lacks 1 weights"),
    "run of foreign code": ("predict foreign_code reviews.csv -o o.csv --profile cpu", "'needs_more'", "--trust-code"),
    "sweet spot of foreign code": ("sweet-spot foreign_code", "'needs_more'", "--trust-code"),
    "crossover of foreign code": ("crossover foreign_code --profile cpu", "'needs_more'", "--trust-code"),
    "run that leads away": ("predict leading_away reviews.csv -o o.csv --profile cpu", "leading_away/experiment.yaml", "'extends' stands in the record"),
    "missing vocabulary": ("predict no_vocabulary reviews.csv -o o.csv --profile cpu", "no_vocabulary/final_model", "tokenizer.json"),
    "crossover without epochs": ("crossover RUN --profile cpu", "RUN", "epoch_<n>.pt"),
    "crossover of junk": ("crossover junk_epoch --profile cpu", "junk_epoch/epoch_1.pt", "weights that dure saved"),
    "crossover of pickled code": ("crossover code_epoch --profile cpu", "code_epoch/epoch_1.pt", "a file that dure saved"),
    "crossover of two models": ("crossover two_models --profile cpu", "two_models/epoch_2.pt", "of another model than"),
    # records
    "result that is no JSON": (f"{RESUME} broken_result", "broken_result/result.json", "remove it and run again"),
    "result without end": (f"{RESUME} deep_result", "deep_result/result.json", "nested too deeply"),
    "run with a link": (f"{RESUME} linked_model", "linked_model/final_model", "cp -rL"),
    "result of another kind": (f"{RESUME} other_result", "other_result/result.json", "'state'"),
    "metrics with a broken line": ("sweet-spot broken_metrics", "broken_metrics/metrics.jsonl, line 1", "remove that line"),
    "metrics of another kind": ("sweet-spot other_metrics", "other_metrics/metrics.jsonl, record 1", "kind or its epoch"),
    "no metrics": ("sweet-spot no_metrics", "no_metrics/metrics.jsonl", "training.eval_every"),
    # continuing
    "nothing to resume": (f"{CLASSIFY} --resume", "--resume", "outputs/transfer_bert"),
    "nothing to resume there": (f"{RESUME} .", "--resume", "experiment.yaml"),
    "no study to resume": ("batch seven --resume --output .", "--resume", "study.yaml"),
    "other settings on resume": (f"{RESUME} RUN training.weight_decay=0.5", "RUN/experiment.yaml", "'training.weight_decay'"),
    "shorter on resume": (f"{RESUME} RUN training.epochs=1", "RUN/experiment.yaml", "can become longer"),
    "other rows on resume": (f"{RESUME} other_rows", "data.train=sample", "put the table back"),
    "longer without checkpoints": (f"{RESUME} no_checkpoints training.epochs=4", "no_checkpoints", "without --resume"),
    "folder that another machine works in": (f"{RESUME} held", "process 4711 of elsewhere", "free within 60 s"),
    "new run where another machine works": (f"{CLASSIFY} --output held", "process 4711 of elsewhere", "free within 60 s"),
    "other preset on resume": ("unified-train --preset 730m --profile cpu --resume unified", "--preset 730m", "leave it out"),
    "sweep that is none": (f"{DRY} --from-sweep RUN", "RUN", "study.yaml"),
    "sweep without a result": (f"{DRY} --from-sweep begun", "begun", "--resume --output begun"),
    "sweep with a broken summary": (f"{DRY} --from-sweep torn", "torn/experiment_summary.json", "summary of a sweep"),
    "sweep with a broken study": (f"{DRY} --from-sweep dated", "dated/study.yaml", "'experiment' is missing"),
    "unified training that is none": ("unified-train --preset tiny --profile cpu --resume sub", "--resume sub", "checkpoints_final/"),
    "crossval of other experiments": ("crossval transfer_bert --resume --output RUN", "--resume", "study.yaml"),
}  # fmt: skip

OPTIONS: dict[str, Row] = {
    "forecast of nothing": ("forecast kobart_basline", "'kobart_basline'", "try: kobart_baseline"),
    # verbs, options and arguments
    "unknown verb": ("trian", "'trian'", "train"),
    "study as a verb": ("seven -1", "'seven'", "try: dure run seven"),
    "file as a verb": ("mine.yaml", "'mine.yaml'", "try: dure run mine.yaml"),
    "old program": ("train_transfer.py --progressive", "'train_transfer.py'", "try: dure progressive transfer_bert"),
    "unknown option": ("train x --rehears", "--rehears", "try: --rehearse"),
    "option of another verb": ("batch seven --folds 3", "No such option: --folds", "try: dure crossval, which has it"),
    "option of many verbs": ("train x --force", "No such option: --force", "try: dure train --help"),
    "option that is a key of the study": ("batch seven --metric eval_loss", "--metric", "'metrics: […]' in the YAML of a batch"),
    "option that is a setting of what is named": (
        "batch transfer_bert transfer_distilbert --metric f1", "--metric", "try: training.best_metric=eval_macro_f1, or 'metrics:",
    ),
    "option that is a setting": ("crossval x --metric f1", "--metric", "try: training.best_metric=eval_macro_f1"),
    "missing argument": ("train", "EXPERIMENT", "dure train --help"),
    "missing option": ("sample", "--output", "dure sample"),
    "a picture without a folder": ("compare one two --figures svg", "--figures", "try: add --output DIR"),
    "nothing to compare": ("compare none", "none", "dure runs"),
    "unknown order of runs": ("runs . --sort sise", "--sort", "try: size"),
    "unknown state of runs": ("runs . --state broken", "--state", "completed"),
    "no folder to clean": ("clean none", "none", "a folder of outputs"),
    "too many arguments": ("list extra", "extra", "dure list --help"),
    "no number": (f"{TRAIN} --samples many", "--samples", "dure train --help"),
    "unknown tokenizer": ("score a b --tokenizer x", "--tokenizer", "morpheme"),
    "unknown schema": ("schema experiments", "'experiments'", "'experiment'"),
    "unknown corpus": ("sample dialogs -o out", "'dialogs'", "dialogues, reviews"),
    "unknown sampler": (f"{SWEEP} --sampler bayes", "--sampler", "'tpe'"),
    "unknown preset": ("unified-test-v1 --preset 730m --dry-run", "--preset", "'800m'"),
    # numbers
    "no samples": (f"{TRAIN} --samples 0", "--samples", "too few rows"),
    "no samples locally": ("train-local --samples 0 --dry-run", "--samples", "too few rows"),
    "unknown profile of a dry run": (f"{DRY} --profile cpuu", "no profile 'cpuu'", "try: cpu"),
    "unknown profile of a study's dry run": (f"{SWEEP} --profile cpuu", "no profile 'cpuu'", "try: cpu"),
    "epochs by option and by setting": (f"{DRY} --epochs 2 training.epochs=3", "--epochs 2", "give one of them"),
    "ratios that stay": (f"{GROW} --ratios 0.1,10%", "dure progressive", "ratios stay at 1/10"),
    "ratio beyond all": (f"{GROW} --ratios 200%", "--ratios: 'ratios[0]' is \"200%\"", "such as 0.1, 10% or 1/10"),
    "family of a like name": (f"{DRY} family=trainables.emotio", "family", "try: trainables.emotion"),
    "word for a number": (f"{DRY} --epochs two", "'--epochs': this is no whole number", "dure train --help"),
    "no epochs": ("unified-train --epochs 0 --dry-run", "--epochs", "at least 1"),
    "batch that divides nothing": ("unified-train --batch-size 7 --dry-run", "--batch-size", "a part of 64"),
    "no folds": ("crossval transfer_bert --dry-run --folds 0", "--folds", "at least 2"),
    "more folds than texts": (f"crossval transfer_bert --rehearse {REVIEWS} --folds 50", "reviews.csv", "at least 50 different texts"),
    "no trials": (f"{SWEEP} --trials 0", "--trials", "at least 1"),
    "no ratio": (f"{GROW} --start-ratio 0", "--start-ratio", "such as 0.1, 10% or 1/10"),
    "ratios that fall": (f"{GROW} --ratios 0.5,0.1", "dure progressive", "ratios fall from 1/2 to 1/10"),
    "steps without end": (f"{GROW} --step-size 1e-9", "--step-size", "more than 1,000"),
    "start above the end": (f"{GROW} --start-ratio 0.5 --max-ratio 0.1", "--max-ratio", "above the end"),
    "no halving": (f"{GROW} --eta 0", "--eta", "at least 1"),
    "gain that is no number": (f"{GROW} --min-gain nan", "--min-gain", "a finite number"),
    "no candidates": (f"{GROW} --num-candidates 0", "--num-candidates", "a number from 1"),
    "grid without end": (f"{SWEEP} --sampler grid --trials 1000000000", "dure sweep", "more than 10,000"),
    "points without end": (f"{GROW} --candidates optimizer --num-candidates 1000000", "--num-candidates", "more than 10,000"),
    "window of one": ("sweet-spot RUN --window 1", "--window", "greater than or equal to 2"),
    "no evaluations": ("crossover RUN --evaluations 0", "--evaluations", "greater than or equal to 1"),
    "more noise than targets": ("sample dilemmas -o out --label-noise 5", "--label-noise", "from 0 to 1"),
    # choices
    "number beyond the study": ("batch seven --only 9", "--only", "1 to 7"),
    "empty choice": ("batch seven --only=", "--only", "numbers"),
    "no experiment": ("crossval training.epochs=1", "dure crossval", "dure list"),
    "experiment twice": ("crossval transfer_bert transfer_bert --dry-run", "dure crossval", "each experiment once"),
    "empty space": (f"{SWEEP} --space=", "no space ''", "learning_rate"),
    "empty metric": (f"{SWEEP} --metric=", "--metric", "NAME:min"),
    "metric of no direction": (f"{SWEEP} --metric eval_loss:up", "--metric", "NAME:min"),
    "direction against the metric of a sweep": (f"{SWEEP} --metric eval_loss:max", "--metric eval_loss:max", "lower is better"),
    "metric of an unknown direction": (f"{SWEEP} --metric eval_loss --metric wer", "--metric wer", "NAME:min"),
    "unknown second metric": (f"{SWEEP} --metric eval_loss --metric eval_lss", "'eval_lss'", "try: eval_loss"),
    "point outside": (f"{SWEEP} --try 5", "--try", "a number from 1e-05 to 0.01"),
    "point of what is not searched": (f"{SWEEP} --try training.epochs=1", "--try", "one of: training.learning_rate"),
    "candidate that is no key": (f"{GROW} --candidates training.learning_rte=1", "--candidates", "try: 'training.learning_rate'"),
    "candidate of what a stage replaces": (f"{GROW} --candidates training.epochs=1,2", "--candidates", "--epochs-per-stage"),
    "setting that a stage replaces": (f"{GROW} training.max_steps=9", "'training.max_steps'", "--epochs-per-stage"),
    "ratio of the rows beside the ratios": (f"{GROW} data.train_ratio=0.5", "'data.train_ratio'", "--ratios"),
    "one epoch of stages": ("run growing.yaml -1 --dry-run", "--one-epoch", "--epochs-per-stage"),
    "candidate that is a date": (f"{GROW} --candidates training.learning_rate=2020-99-99", "--candidates", "a number"),
    "candidate of aliases": (f"{GROW} --candidates training.epochs=&a,*a", "--candidates", "extends"),
    "candidate twice": (f"{GROW} --candidates training.weight_decay=1,1", "--candidates", "stands there twice"),
    "noise for reviews": ("sample reviews -o out --label-noise 0.5", "--label-noise", "dilemmas"),
    # what contradicts
    "ratios and a start": (f"{GROW} --ratios 0.5 --start-ratio 0.1", "--ratios 0.5", "give either"),
    "two metrics and a stopper": (
        f"sweep transfer_bert --rehearse --profile cpu {' '.join(TINY)} --scheduler median --metric eval_loss --metric seconds --output out",
        "--scheduler median",
        "one metric",
    ),
    # where it goes
    "output is a file": (f"{TRAIN} --output good.csv", "--output good.csv", "a new or an empty folder"),
    "output is not empty": (f"{TRAIN} --output .", "--output .", "--resume"),
    "prediction of nothing": ("predict RUN --profile cpu", "dure predict", "--text"),
    "prediction to nowhere": ("predict RUN reviews.csv --profile cpu", "--output", "-o predictions.csv"),
    "predictions into a folder": ("predict RUN reviews.csv -o . --profile cpu", "--output .", "a file to write"),
    "predictions over their table": ("predict RUN reviews.csv -o reviews.csv --profile cpu", "--output reviews.csv", "another file"),
    "predictions over another file": ("predict RUN reviews.csv -o good.csv --profile cpu", "--output good.csv", "--force"),
    "predictions of no format": ("predict RUN reviews.csv -o o.doc --profile cpu", "--output o.doc", ".xlsx"),
    "training setting for predict": (
        "predict RUN reviews.csv training.epochs=2 -o o.csv --profile cpu", "'training.epochs'", "data.on_bad_row",
    ),
    "training setting for score": ("score good.csv good.csv data.train=a.csv", "'data.train'", "data.encoding"),
    "sample over a file": ("sample -o mine", "train.csv", "--force"),
    "sample into a file": ("sample -o good.csv", "--output good.csv", "a folder that files can be written to"),
    "nothing to stop": ("stop sub", "sub", "--background"),
}  # fmt: skip

ENVIRONMENT: dict[str, Row] = {
    "fp16 on T5": (
        f"train eenzeenee_t5 --rehearse {' '.join(TINY)} training.precision=fp16 --profile cpu", "training.precision", "t5",
    ),
    "output below a file": (f"{TRAIN} --output good.csv/run", "--output good.csv/run", "can be written to"),
    "output where nobody can write": (f"{TRAIN} --output /proc/dure/run", "--output /proc/dure/run", "can be written to"),
    "sample where nobody can write": ("sample -o /proc/dure", "--output /proc/dure", "can be written to"),
    "predictions below a file": ("predict RUN reviews.csv -o good.csv/o.csv --profile cpu", "--output good.csv", "can be written to"),
    "device that is not here": (f"{TRAIN} --profile m4", "profile m4", "mps"),
    "hub out of reach": ("train kobart_baseline --profile cpu", "model.checkpoint", "--rehearse"),
    "nobody at the address": (f"{TRAIN} --address 127.0.0.1:1", "--address 127.0.0.1:1", "ray status"),
    "address that is none": (f"{TRAIN} --address localhost", "--address localhost", "ray status"),
    "empty address": (f"{TRAIN} --address=", "--address", "host:port or auto"),
    "database that is none": (
        f"sweep transfer_bert --rehearse --profile cpu {' '.join(TINY)} --storage nosuch://x --output out",
        "--storage nosuch://x",
        "sqlite:///",
    ),
}  # fmt: skip

ENVIRONMENT |= {
    "page of nothing": ("report nowhere", "nowhere", "study.yaml or experiment.yaml"),
    "page that is none": ("verify-report key.yaml", "key.yaml", "dure report"),
    "page that is not there": ("verify-report nowhere.html", "nowhere.html", "a report.html"),
    "format of pictures that is none": (f"{TRAIN} --figures gif", "--figures", "'pdf', 'svg'"),
}

HUGE = "red_heart_tiny --profile cpu training.keep_epochs=1 training.keep_epochs_limit=1e9"
ENVIRONMENT |= {
    f"disk too small for {verb}": (f"{verb} {HUGE} {epochs}", "outputs: ", "training.save_total_limit")
    for verb, epochs in (
        ("train", "training.epochs=1e9"),
        ("sweep", "training.epochs=1e9"),
        ("crossval", "training.epochs=1e9"),
        ("progressive", "--epochs-per-stage 1000000000"),
    )
}

VALIDATED: dict[str, Row] = {
    # the table of `dure validate` is its result, so these stand on stdout
    "unknown experiment": ("validate kobart_basline --profile cpu", "config", "kobart_baseline"),
    "missing table": ("validate transfer_bert --rehearse data.train=none.csv data.dev=null --profile cpu", "data.train=none.csv", "no such file"),
    "run of foreign code": ("validate --checkpoint foreign_code --profile cpu", "needs_more", "--trust-code"),
    "run that leads away": ("validate --checkpoint leading_away --profile cpu", "experiment.yaml", "'extends' stands in the record"),
    "no checkpoint": ("validate --checkpoint nothing --profile cpu", "nothing", "final_model"),
    "disk too small": (
        "validate red_heart_tiny --profile cpu training.keep_epochs=1 training.epochs=1e9 training.keep_epochs_limit=1e9",
        "environment, disk",
        "training.save_total_limit",
    ),
}  # fmt: skip
