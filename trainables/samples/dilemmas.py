"""The sample corpus for multi-task learning: what someone did to someone, in Korean, and how it is to be weighed.

Every target follows from the text: the feeling from what the teller (and not the other one) felt, each value from
the sentence that tells of it, the parts from which cause comes first. So a model can learn all of them, and with
swapped targets (``label_noise``) it can learn too much. The same for one seed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from dure.errors import UserError
from dure.files import make_folder, written_beside
from trainables.samples.corpus_files import sizes_of

TARGETS = ("emotions", "bentham_scores", "regret_factor", "surd_metrics")
"""The columns that are to be predicted."""
MAX_DILEMMAS = 100_000
"""The most rows of one corpus: few enough that drawing new texts stays fast."""
_UNSAID = 0.5
"""Value of what the text does not speak of."""
_MISSING = 0.1
"""Part of the targets that a row lacks, as real rows do."""

_WHEN = ("어제", "지난주에", "며칠 전에", "주말에", "작년 겨울에", "오늘 아침에", "방학 때", "명절에")
_PLACES = ("회사에서", "학교에서", "시장에서", "병원에서", "동네에서", "식당에서", "도서관에서", "버스에서")
_OTHERS = ("친구가", "동생이", "이웃이", "선배가", "손님이", "동료가", "사촌이", "선생님이")
_DEEDS = {
    "돈을 빌려주는 일": "돈을 빌려 달라는 부탁을 받았다",
    "비밀을 지키는 일": "비밀을 지켜 달라는 말을 들었다",
    "자리를 양보하는 일": "자리를 양보할지 정해야 했다",
    "약속을 미루는 일": "약속을 미루어야 했다",
    "잘못을 알리는 일": "남의 잘못을 알릴지 정해야 했다",
    "선물을 돌려주는 일": "받은 선물을 돌려주어야 했다",
    "일을 대신하는 일": "남의 일을 대신하게 되었다",
    "모임을 그만두는 일": "모임을 그만두겠다고 말했다",
}
_FAULTS = {
    "AUTHOR": ("잘못은 내가 했다.", "내가 먼저 약속을 어겼다."),
    "OTHER": ("잘못은 그쪽이 했다.", "그쪽이 먼저 거짓말을 했다."),
    "EVERYBODY": ("둘 다 잘못했다.", "서로에게 심한 말을 했다."),
    "NOBODY": ("아무도 잘못하지 않았다.", "누구의 탓도 아니다."),
    "INFO": ("누가 잘못했는지는 아직 모른다.", "사정을 더 들어 보아야 한다."),
}
_FEELINGS = {
    "joy": ("기뻤", "즐거웠", "행복했"),
    "sadness": ("슬펐", "서러웠", "눈물이 났"),
    "anger": ("화가 났", "분했", "약이 올랐"),
    "fear": ("무서웠", "두려웠", "겁이 났"),
    "surprise": ("깜짝 놀랐", "뜻밖이었", "어리둥절했"),
    "disgust": ("역겨웠", "지긋지긋했", "질색이었"),
    "neutral": ("덤덤했", "아무렇지 않았", "담담했"),
}
_VALUES = {
    "intensity": {0.1: "조금 좋을 뿐이고", 0.9: "더없이 좋고"},
    "duration": {0.1: "잠깐 가고", 0.9: "평생 가고"},
    "certainty": {0.2: "될지 안 될지 모르고", 0.95: "틀림없이 되고"},
    "propinquity": {0.1: "먼 훗날의 일이고", 0.9: "곧 닥칠 일이고"},
    "fecundity": {0.15: "다른 좋은 일로 이어지지 않고", 0.85: "좋은 일이 꼬리를 물고"},
    "purity": {0.2: "괴로움이 섞이고", 0.9: "괴로움이 섞이지 않고"},
    "extent": {0.1: "나 혼자만의 일이고", 0.95: "온 동네의 일이고"},
    "external_cost": {0.1: "남에게 드는 것이 없고", 0.85: "남에게 큰 짐이 되고"},
    "redistribution": {0.1: "가진 사람이 더 갖고", 0.9: "없는 사람에게 돌아가고"},
    "self_damage": {0.05: "나는 다치지 않고", 0.8: "내 몸이 상하고"},
}
_NUM_SAID = 4
_REGRETS = {
    0.05: ("후회는 조금도 없다.", "다시 해도 똑같이 하겠다."),
    0.35: ("가끔 생각이 난다.", "조금은 아쉽다."),
    0.65: ("지나고 보니 후회가 된다.", "달리 할 것을 그랬다."),
    0.95: ("두고두고 뼈아프게 후회한다.", "평생 나를 용서하지 못하겠다."),
}
_CAUSES = {
    "synergy": "두 가지가 겹쳐서",
    "unique": "오직 한 가지 때문에",
    "redundant": "어느 쪽으로든 마찬가지라서",
    "deterministic": "처음부터 정해져 있어서",
}
_FIRST, _SECOND, _REST = 0.7, 0.2, 0.05


@dataclass(frozen=True)
class Dilemma:
    """One row of the corpus; a target that the row lacks is None."""

    id: str
    """The row's id, such as ``train_0``."""
    text: str
    """What happened."""
    title: str
    """What it is about."""
    action: str
    """What the teller came to do."""
    label: str
    """Who is in the wrong: AUTHOR, EVERYBODY, INFO, NOBODY or OTHER."""
    emotions: list[float] | dict[str, float] | str | None
    """What the teller felt: seven numbers, an object of numbers by name, or one name."""
    bentham_scores: list[float] | dict[str, float] | None
    """Ten numbers, or an object of those that the text speaks of."""
    regret_factor: float | None
    """From 0 to 1."""
    surd_metrics: list[float] | dict[str, float] | None
    """Four shares, as a list or an object."""

    def cells(self) -> dict[str, str]:
        """Return the row as texts: what is no text as JSON, and what is missing as an empty one."""
        return {
            name: value
            if isinstance(value, str)
            else ""
            if value is None
            else json.dumps(value, ensure_ascii=False)
            for name, value in asdict(self).items()
        }


@cache
def dilemma_corpus(
    *,
    seed: int = 42,
    num_train: int = 2000,
    num_dev: int = 300,
    num_test: int = 300,
    label_noise: float = 0.0,
) -> dict[str, list[Dilemma]]:
    """Write the corpus: all texts are different, within a split and among splits.

    The same seed gives the same corpus, in every process and on every machine. ``label_noise`` is the part of the
    training targets that are taken from another training row, each kind by itself, so that what is learned by heart does
    not help; the texts are those without noise.

    Returns:
        The splits ``train``, ``dev`` and ``test``.

    Raises:
        UserError: A number cannot be.
    """
    sizes = sizes_of(num_train, num_dev, num_test, most=MAX_DILEMMAS)
    if not 0 <= label_noise <= 1:
        raise UserError(f"{label_noise} is no share", where="--label-noise", expected="a number from 0 to 1")
    rng = random.Random(seed)
    seen: set[str] = set()
    corpus = {
        split: [_dilemma(rng, f"{split}_{number}", seen) for number in range(size)]
        for split, size in sizes.items()
    }
    corpus["train"] = _noisy(corpus["train"], label_noise, random.Random(seed + 1))
    return corpus


def write_dilemmas(folder: Path, *, label_noise: float) -> dict[str, Path]:
    """Write the corpus as JSON lines; a target that a row lacks is left out of its object.

    Returns:
        The paths by name: ``train``, ``dev`` and ``test``.

    Raises:
        UserError: The folder cannot be written to, or the noise is no part.
    """
    corpus = dilemma_corpus(label_noise=label_noise)
    make_folder(folder, where=f"--output {folder}")
    paths = {split: folder / f"{split}.jsonl" for split in corpus}
    for split, path in paths.items():
        with written_beside(path) as beside, beside.open("w", encoding="utf-8", newline="\n") as file:
            for row in corpus[split]:
                said = {name: value for name, value in asdict(row).items() if value is not None}
                file.write(f"{json.dumps(said, ensure_ascii=False)}\n")
    return paths


def _dilemma(rng: random.Random, identifier: str, seen: set[str]) -> Dilemma:
    while True:
        row = _drawn(rng, identifier)
        if row.text not in seen:
            seen.add(row.text)
            return row


def _drawn(rng: random.Random, identifier: str) -> Dilemma:
    title, deed = rng.choice(list(_DEEDS.items()))
    label = rng.choice(list(_FAULTS))
    mine, others = rng.sample(list(_FEELINGS), 2)
    other = rng.choice(_OTHERS)
    feeling, strange = rng.choice(_FEELINGS[mine]), rng.choice(_FEELINGS[others])
    felt = rng.choice(
        [
            f"나는 {feeling}다.",
            f"{other} {strange}지만 나는 {feeling}다.",
            f"나는 {feeling}지만 {other} {strange}다.",
        ]
    )
    said = {name: rng.choice(list(_VALUES[name])) for name in rng.sample(list(_VALUES), _NUM_SAID)}
    values = " ".join(_VALUES[name][value] for name, value in said.items())
    regret = rng.choice(list(_REGRETS))
    first, second = rng.sample(list(_CAUSES), 2)
    sentences = [
        f"{rng.choice(_WHEN)} {rng.choice(_PLACES)} {deed}.",
        rng.choice(_FAULTS[label]),
        felt,
        f"그 일은 {values} 하는 일이었다.",
        f"무엇보다 {_CAUSES[first]}, 조금은 {_CAUSES[second]} 생긴 일이다.",
        rng.choice(_REGRETS[regret]),
    ]
    parts = dict.fromkeys(_CAUSES, _REST) | {first: _FIRST, second: _SECOND}
    emotions, bentham, surd = _emotions(rng, mine), _bentham(rng, said), _either(rng, parts)
    there = [rng.random() >= _MISSING for _ in TARGETS]
    return Dilemma(
        id=identifier,
        text=" ".join(sentences),
        title=title,
        action=deed,
        label=label,
        emotions=emotions if there[0] else None,
        bentham_scores=bentham if there[1] else None,
        regret_factor=regret if there[2] else None,
        surd_metrics=surd if there[3] else None,
    )


def _emotions(rng: random.Random, name: str) -> list[float] | dict[str, float] | str:
    match rng.randrange(3):
        case 0:
            return name
        case 1:
            return {name: 0.9, rng.choice([other for other in _FEELINGS if other != name]): 0.1}
        case _:
            return [1.0 if other == name else 0.0 for other in _FEELINGS]


def _bentham(rng: random.Random, said: Mapping[str, float]) -> list[float] | dict[str, float]:
    return dict(said) if rng.random() < 0.5 else [said.get(name, _UNSAID) for name in _VALUES]


def _either(rng: random.Random, parts: Mapping[str, float]) -> list[float] | dict[str, float]:
    return dict(parts) if rng.random() < 0.5 else list(parts.values())


def _noisy(rows: Sequence[Dilemma], part: float, rng: random.Random) -> list[Dilemma]:
    """Return the rows with a part of their targets taken from other rows that have one."""
    noisy = list(rows)
    for name in TARGETS:
        donors = [value for value in (getattr(row, name) for row in rows) if value is not None]
        for place, row in enumerate(rows):
            if getattr(row, name) is not None and rng.random() < part:
                change: dict[str, Any] = {name: rng.choice(donors)}
                noisy[place] = replace(noisy[place], **change)
    return noisy
