"""Embedded Korean corpora: what families rehearse on, and what ``dure sample`` writes."""

from __future__ import annotations

from pathlib import Path

from dure.errors import UserError, nearest

CORPORA = {
    "dialogues": "dialogues with summaries",
    "reviews": "reviews with classes",
    "emotions": "texts with emotions",
    "dilemmas": "dilemmas with many targets",
    "chats": "conversations about the dialogues",
    "preferences": "dialogues with a right and a wrong summary",
}
"""Corpora by name, each in a few words."""


def write_sample(name: str, folder: Path, *, label_noise: float = 0.0) -> dict[str, Path]:
    """Write a corpus as tables, and return their paths by name.

    Args:
        name: One of :data:`CORPORA`.
        folder: Where to; made when it is not there.
        label_noise: Part of the training targets that are swapped; only the dilemmas have such noise.

    Raises:
        UserError: There is no such corpus, it has no noise, or the folder cannot be written to.
    """
    if name not in CORPORA:
        raise UserError(
            f"there is no corpus '{name}'",
            where="CORPUS",
            expected=f"one of: {', '.join(CORPORA)}",
            hint=nearest(name, list(CORPORA)),
        )
    if name == "dilemmas":
        from trainables.samples.dilemmas import write_dilemmas

        return write_dilemmas(folder, label_noise=label_noise)
    if label_noise:
        raise UserError(f"{name} have no label noise", where="--label-noise", expected="dilemmas")
    if name == "chats":
        from trainables.samples.chats import write_chats

        return write_chats(folder)
    from trainables.samples.corpus_files import write_corpus

    match name:
        case "dialogues":
            from trainables.samples.dialogues import dialogue_corpus

            columns = ("fname", "dialogue", "summary", "topic")
            return write_corpus(folder, dialogue_corpus(), columns, truth="summary")
        case "preferences":
            from trainables.samples.preferences import preference_corpus

            columns = ("id", "prompt", "chosen", "rejected")
            return write_corpus(folder, preference_corpus(), columns, truth="chosen")
        case "reviews":
            from trainables.samples.reviews import review_corpus

            return write_corpus(folder, review_corpus(), ("id", "text", "label"), truth="label")
        case _:
            from trainables.samples.emotions import emotion_corpus

            return write_corpus(folder, emotion_corpus(), ("id", "text", "label"), truth="label")
