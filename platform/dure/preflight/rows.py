"""Whether the tables of an experiment can be read whole, and what stands in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dure.config.data import Source
from dure.data.labels import label_counts, shown_label
from dure.data.overlap import notes_on_rows
from dure.data.tables import Table
from dure.errors import UserError, counted
from dure.family import Family, load_family
from dure.preflight.checks import Checklist, Note
from dure.preflight.model import offline
from dure.preflight.settings import sources as found_sources

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CLASSES_NAMED = 6


def check_rows(checklist: Checklist, family: Family) -> PreTrainedTokenizerBase | None:
    """Check the tables of an experiment and how they are cut and encoded; return the tokenizer of their rows."""
    sources = checklist.run("data", "sources", found_sources, family=family)
    if sources is None:
        checklist.skip("data", "the sources are wrong, see above", "tables", "targets", "split", "encoding")
        return None
    # A reader that leaves out bad rows finds all of them, where the experiment's own stops at the first.
    lenient = load_family(family.experiment.with_({"data.on_bad_row": "skip"}))
    tables: dict[str, Table] = {}
    is_read = True
    for split, source in sources.items():
        found = checklist.run("data", f"{split} table", _table, family, lenient, split, source, tables)
        is_read = is_read and found is not None
    if "train" not in tables:
        told = "there is no training table to look at, see above"
        checklist.skip("data", told, "targets", "split", "encoding")
        return None
    surveyed = checklist.run("data", "targets", _targets, family=lenient, tables=tables)
    checklist.run("data", "split", _split, family=family, tables=tables)
    if not is_read or surveyed is None:
        checklist.skip("data", "a table is wrong, see above", "encoding")
        return None
    return checklist.run("data", "encoding", _encoding, family=family, known=surveyed)


def _table(
    note: Note, family: Family, lenient: Family, split: str, source: Source, tables: dict[str, Table]
) -> Table:
    """Read a table to its end, and put it into ``tables`` even when it has rows that would stop a run."""
    from dure.family.corpus import read_split

    try:
        table = tables[split] = read_split(lenient, split, source)
    except UserError:
        read_split(family, split, source)  # names the first bad row, where none is left
        raise
    bad = sum(skipped.count for skipped in table.skipped)
    messages = [message.removeprefix(f"{table.source}: ") for message in table.messages()]
    if bad and family.experiment.data.on_bad_row == "error":
        try:
            read_split(family, split, source)
        except UserError as error:
            raise error.at(
                table.source,
                f"{bad:,} bad of {counted(table.num_rows + bad, 'row')}; with data.on_bad_row=skip: {'; '.join(messages)}. "
                f"The first: {error.where}: {error.problem}",
            ) from None
    note.found = "; ".join((f"{counted(table.num_rows, 'row')} of {table.source}", *messages))
    if bad:
        note.remedy = "data.on_bad_row=skip leaves them out; correct them to train on all rows"
    return table


def _targets(note: Note, family: Family, tables: dict[str, Table]) -> list[str]:
    """Let the family look at the tables, and count the classes; return what the family told."""
    told: list[str] = []
    family.notify = told.append
    family.survey(tables)
    parts = []
    for role in family.roles:
        if role.is_class and role.name in tables["train"].dataset.column_names:
            counts = label_counts(tables["train"].cells(role.name), role.separator)
            shares = [
                f"{shown_label(name) or '(none)'}: {number:,}"
                for name, number in counts.most_common(_CLASSES_NAMED)
            ]
            more = ", …" if len(counts) > _CLASSES_NAMED else ""
            number = len(counts) - ("" in counts)
            what = "labels, several in a row" if role.separator else "classes"
            parts.append(f"{role.name}: {number} {what} ({', '.join(shares)}{more})")
    texts = notes_on_rows(tables, family.roles)
    note.found = "; ".join((*parts, *told, *texts)) or "texts, no classes"
    return told


def _split(note: Note, family: Family, tables: dict[str, Table]) -> None:
    """Check that rows that train and rows that judge share no text."""
    from dure.data.overlap import overlap
    from dure.family.splits import cut

    data, splits = family.experiment.data, cut(family, tables)
    if data.fold is not None:
        trained, dev, test = (len(splits.rows[split]) for split in ("train", "dev", "test"))
        note.found = "; ".join(
            (
                f"{counted(trained, 'row')} to train on, {dev:,} select, {test:,} are held out, and no text is in two of them",
                *splits.notes,
            )
        )
        return
    tables, train = dict(splits.tables), splits.tables["train"]
    inputs = [role.name for role in family.roles if role.is_input]
    shared = {
        split: len(overlap(train, table, inputs)) for split, table in tables.items() if split != "train"
    }
    if not any(shared.values()):
        note.found = "; ".join(splits.messages()) or (
            f"no training text stands in {' or '.join(shared) or 'another table'}"
        )
        return
    found = "; ".join(
        f"{number:,} of {counted(train.num_rows, 'training row')} with a text that stands in {split} too"
        for split, number in shared.items()
        if number
    )
    match data.on_overlap:
        case "error":
            raise UserError(found, where="data.on_overlap=error", hint="remove them, or data.on_overlap=drop")
        case "drop":
            note.found = f"{found}; training leaves them out"
        case "warn":
            note.found, note.remedy = (
                f"{found}; they are kept, so validation flatters",
                "data.on_overlap=drop",
            )


def _encoding(note: Note, family: Family, known: list[str]) -> PreTrainedTokenizerBase:
    """Encode the rows as a run would, which then finds them in the cache.

    Reports unknown and truncated ones, and what the family tells of its tokenizer, beside what is ``known``.
    """
    from dure.family.corpus import load_corpus

    told: list[str] = []
    of_family: list[str] = []
    family.notify = of_family.append
    family.computes_ahead = False
    with offline(family.experiment.model):
        corpus = load_corpus(family, notify=told.append)
    counted = [line for line in told if "unknown tokens" in line] or told
    note.found = "; ".join((*counted, *dict.fromkeys(line for line in of_family if line not in known)))
    return corpus.tokenizer
