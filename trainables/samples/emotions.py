"""The sample corpus for emotions: what people write of their day, in Korean, and what they feel.

Written from dure's own grammar and the same for one seed. Single words do not give the emotion away: feelings
are denied, expected in vain (…ㄹ 줄 알았는데), past already (처음에는 …) or those of others, the events of one emotion stand in texts of
another, and ㅋㅋ and ㅠㅠ go with any. As in texts from the web, some stand twice, though only in training.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from trainables.samples.corpus_files import labels_in, sizes_of
from trainables.samples.korean import Verb, did

CLASSES = {"neutral": 45, "sad": 22, "anger": 18, "anxiety": 10, "joy": 5}
"""The emotions with their shares of every split in percent."""
MAX_TEXTS = 20_000
"""The most texts of one corpus."""
COPIED = 0.03
"""Part of the training rows that say what another row says, half of them with other spaces."""

_EVENTS = {
    "joy": (
        "시험에 합격하다", "친구에게 깜짝 선물을 받다", "동생이 취직하다", "조카가 태어나다", "응원하던 팀이 이기다",
        "월급이 오르다", "오랜 친구를 만나다", "부모님이 칭찬해 주다", "표를 겨우 구하다", "작은 상을 타다",
    ),
    "sad": (
        "친구가 멀리 이사하다", "키우던 화분이 시들다", "할머니가 입원하다", "강아지를 떠나보내다", "혼자 생일을 보내다",
        "단골 빵집이 문을 닫다", "오래 쓴 일기장을 잃어버리다", "시험에 떨어지다", "그 사람과 헤어지다", "약속이 취소되다",
    ),
    "anxiety": (
        "검사 결과가 늦어지다", "면접이 다가오다", "발표 차례가 다가오다", "모르는 번호로 전화가 오다", "밤길을 혼자 걷다",
        "비행기가 흔들리다", "회의에 혼자 불려 가다", "집에 문을 잠갔는지 모르다", "통장에 돈이 없다", "아이 열이 내리지 않다",
    ),
    "anger": (
        "옆집이 새벽까지 떠들다", "누가 새치기를 하다", "동료가 내 공을 가로채다", "택시가 그냥 지나가다", "상담원이 말을 끊다",
        "친구가 또 약속을 어기다", "주문한 것과 다른 물건이 오다", "누가 차를 긁고 도망가다", "팀장이 책임을 떠넘기다",
        "앞사람이 담배꽁초를 버리다",
    ),
    "neutral": (
        "우체국에 들르다", "점심으로 국수를 먹다", "버스를 타고 출근하다", "책상을 정리하다", "도서관에 책을 반납하다",
        "머리를 자르다", "마트에서 우유를 사다", "이불 빨래를 하다", "서류를 복사하다", "동네를 한 바퀴 걷다",
    ),
}  # fmt: skip
_FEELINGS = {
    "joy": ("기쁘다", "신나다", "행복하다", "뿌듯하다", "설레다", "마음이 날아갈 것 같다"),
    "sad": ("슬프다", "우울하다", "서럽다", "허전하다", "눈물이 나다", "마음이 무겁다"),
    "anxiety": ("불안하다", "걱정되다", "초조하다", "겁이 나다", "조마조마하다", "두렵다"),
    "anger": ("화가 나다", "짜증이 나다", "분하다", "괘씸하다", "열이 오르다", "참기가 힘들다"),
}
_TIMES = ("", "오늘 ", "어제 ", "아침에 ", "저녁에 ", "주말에 ", "며칠 전에 ", "조금 전에 ")
_DEGREES = ("", "정말 ", "너무 ", "조금 ", "꽤 ", "내내 ")
_OTHERS = ("동생은 ", "친구는 ", "엄마는 ", "옆 사람은 ", "다들 ")
_ENDINGS = ("아요", "습니다", "네요")
_TAILS = ("", "", "", " ㅋㅋㅋ", " ㅠㅠ", " ㅎㅎ", " ㅠㅠㅠㅠ", "..", "!!")
_FEELING_CLASSES = tuple(_FEELINGS)


@dataclass(frozen=True)
class Feeling:
    """One row of the corpus."""

    id: str
    """The row's id, such as ``train_0``."""
    text: str
    """One or two sentences."""
    label: str
    """One of :data:`CLASSES`."""


@cache
def emotion_corpus(
    *, seed: int = 42, num_train: int = 2000, num_dev: int = 300, num_test: int = 300
) -> dict[str, list[Feeling]]:
    """Write the corpus: texts are different among splits; within training a few stand twice, with one label.

    The same seed gives the same corpus, in every process and on every machine.

    Returns:
        The splits ``train``, ``dev`` and ``test``, each with the emotions in their shares, in random order.

    Raises:
        UserError: A number is negative, or they are more than :data:`MAX_TEXTS` together.
    """
    sizes = sizes_of(num_train, num_dev, num_test, most=MAX_TEXTS)
    rng = random.Random(seed)
    seen: set[str] = set()
    corpus = {split: _split(rng, split, size, seen) for split, size in sizes.items()}
    return corpus | {"train": _with_copies(rng, corpus["train"])}


def _split(rng: random.Random, split: str, size: int, seen: set[str]) -> list[Feeling]:
    return [
        Feeling(f"{split}_{number}", _new_text(rng, label, seen), label)
        for number, label in enumerate(labels_in(CLASSES, size, rng))
    ]


def _new_text(rng: random.Random, label: str, seen: set[str]) -> str:
    while True:
        text = _neutral(rng) if label == "neutral" else _moved(rng, label)
        tail = rng.choice(_TAILS)
        text = (text.removesuffix(".") if tail == "!!" else text) + tail
        if text not in seen:
            seen.add(text)
            return text


def _with_copies(rng: random.Random, rows: list[Feeling]) -> list[Feeling]:
    """Let some rows say what another row of their emotion says, so that shares stay."""
    copied = list(rows)
    for place, number in enumerate(rng.sample(range(len(rows)), round(COPIED * len(rows)))):
        row = rows[number]
        other = rng.choice([each for each in rows if each.label == row.label])
        text = other.text.replace(" ", "  ", 1) if place % 2 else other.text
        copied[number] = Feeling(row.id, text, row.label)
    return copied


def _moved(rng: random.Random, label: str) -> str:
    """A text of somebody who feels ``label``."""
    time, degree, ending = rng.choice(_TIMES), rng.choice(_DEGREES), rng.choice(_ENDINGS)
    event, feeling = Verb(rng.choice(_EVENTS[label])), rng.choice(_FEELINGS[label])
    felt = f"{degree}{did(feeling):{ending}}."
    contrary = rng.choice([each for each in _FEELING_CLASSES if each != label])
    denied = rng.choice(_FEELINGS[contrary])
    match rng.randrange(8):
        case 0:
            return f"{time}{event:아서} {felt}"
        case 1:
            return f"{time}{did(event.phrase):는데} {felt}"
        case 2:  # an event of any kind, so that only the feeling tells
            anything = rng.choice(_EVENTS[rng.choice(list(_EVENTS))])
            return f"{time}{did(anything):는데} 왠지 {felt}"
        case 3:  # an event alone, so that only it tells
            return f"{time}{did(event.phrase):{ending}}. 아직도 그 생각뿐이에요."
        case 4:
            return f"{time}{event:아서} {Verb(denied):을 줄 알았는데} 오히려 {felt}"
        case 5:
            return f"{rng.choice(_OTHERS)}{did(denied):다고} 했지만 저는 {event:아서} {felt}"
        case _:  # two feelings, of which the later counts, told in any order
            then = f"처음에는 {rng.choice(_DEGREES)}{did(denied):{ending}}."
            told = rng.sample([then, f"나중에는 {felt}"], 2)
            anything = rng.choice(_EVENTS[rng.choice([label, contrary])])
            return f"{time}{did(anything):{ending}}. {' '.join(told)}"


def _neutral(rng: random.Random) -> str:
    """A text of somebody who tells and feels nothing much."""
    time, ending = rng.choice(_TIMES), rng.choice(_ENDINGS)
    one, other = rng.sample(_EVENTS["neutral"], 2)
    feeling = rng.choice(_FEELINGS[rng.choice(_FEELING_CLASSES)])
    match rng.randrange(4):
        case 0:
            return f"{time}{Verb(one):고} {did(other):{ending}}."
        case 1:
            return f"{time}{did(one):는데} 별일은 없{'었' + ('어요' if ending == '아요' else ending)}."
        case 2:
            return f"{rng.choice(_OTHERS)}{did(feeling):다고} 했지만 저는 {time}{did(one):{ending}}."
        case _:
            stirring = rng.choice(_EVENTS[rng.choice(_FEELING_CLASSES)])
            return f"{time}{did(stirring):지만} 아무렇지 않게 {did(one):{ending}}."
