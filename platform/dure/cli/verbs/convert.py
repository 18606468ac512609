"""The verb that leads an old configuration over: convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import print_result


@verb("convert", place=215)
def convert(
    old: Annotated[
        Path,
        typer.Argument(help="YAML or JSON file with Hugging Face's keys or older ones.", metavar="OLD.yaml"),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.", metavar="NEW.yaml")],
    overrides: options.Overrides = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write an old configuration as an experiment of dure, and say what has no successor."""
    from dure.config.converting import convert, read_old
    from dure.errors import UserError, shell_word, shown_path
    from dure.family import family_of_old
    from dure.files import write_text

    if output.suffix not in (".yaml", ".yml"):
        raise UserError(f"'{output}' is no YAML file", where="--output", expected="a name that ends in .yaml")
    if output.exists() and (not force or output.samefile(old)):
        raise UserError(
            "the file is there already",
            where=str(output),
            expected="a new file",
            hint="another name" if output.samefile(old) else "another name, or --force",
        )
    values = read_old(old)
    if "extends" in values:
        raise UserError(
            "it extends another file, and only whole files are converted",
            where=f"{shown_path(old)}: extends",
            hint=f"dure train {shell_word(old)} --dry-run, which names the new key for every old one",
        )
    converted = convert(values, old.stem, family_of_old)
    text = _checked(converted, overrides or (), shown_path(old))
    said = [f"# {' '.join(note.split())}" for note in converted.notes]
    header = [f"# Converted from {old.name} by `dure convert`.", *(["# To know:", *said] if said else [])]
    write_text(output, "\n".join([*header, text]))
    result = {"path": str(output), "notes": converted.notes}
    lines = [*converted.notes, f"written: {output}", f"try: dure train {shell_word(output)} --dry-run"]
    print_result(result, "\n".join(lines))


def _checked(converted: Any, overrides: Any, source: str) -> str:
    """Return the new file's text, which loads."""
    import yaml

    from dure.config.loading import checked
    from dure.config.schema import Experiment
    from dure.config.sections import in_order
    from dure.config.tree import Dumper, flat, plain, with_overrides
    from dure.errors import UserError
    from dure.family import load_family
    from dure.metrics.metric import choosable

    tree = with_overrides(_entries(converted.tree(), source), overrides)
    if "checkpoint" not in plain(tree).get("model", {}):
        raise UserError(
            "no model is named",
            where=source,
            expected="model.checkpoint",
            hint="add model.checkpoint=NAME to the command",
        )
    places = {tuple(key.split(".")): f"{source}: {old}" for key, old in converted.sources.items()}
    experiment = checked(Experiment, plain(tree), places, source)
    family = load_family(experiment)
    try:
        _ = family.best_metric
    except UserError as error:
        names = choosable(family.metrics)
        wanted = (experiment.training.best_metric, "eval_rouge_sum", "eval_macro_f1", *names)
        metric = next(name for name in wanted if name in names)
        converted.notes.append(
            f"training.best_metric: {metric} with its own direction, since {error.problem}"
        )
        tree = with_overrides(tree, [f"training.best_metric={metric}", "training.higher_is_better=null"])
    ordered = in_order(Experiment, flat(plain(tree)))
    return yaml.dump(ordered, Dumper=Dumper, allow_unicode=True, sort_keys=False, width=110)


def _entries(values: Any, source: str) -> Any:
    from dure.config.tree import Entry

    return {
        key: Entry(_entries(value, source) if isinstance(value, dict) else value, source)
        for key, value in values.items()
    }
