"""Telling a story of the sample corpus as a dialogue, turn by turn."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

from trainables.samples import phrases
from trainables.samples.korean import Noun, Register, Verb, in_register
from trainables.samples.scenario import Ending, Exchange
from trainables.samples.story import Story

MIN_TURNS, MAX_TURNS = 4, 16

_Choice = TypeVar("_Choice", str, Exchange)

_WITHOUT_RESULT = (Ending.REFUSED, Ending.DECLINED, Ending.WITHDRAWN)


def tell(story: Story) -> str:
    """Return the dialogue: one turn per line, ``#Person1#: …``, from 4 to 16 turns.

    Chatter gives way, last drawn first, where the story would be longer; a farewell fills one that is shorter.
    """
    layout = story.layout
    for kept in range(len(layout.chatter), -1, -1):
        telling = _Telling(story, chatter=layout.chatter[:kept])
        if len(telling.turns) <= MAX_TURNS:
            break
    return telling.text()


class _Telling:
    """One dialogue in the making: turns are added in order, and lines of one speaker in a row are one turn."""

    def __init__(self, story: Story, chatter: tuple[str, ...]) -> None:
        self.story = story
        self.chatter = chatter
        self.turns: list[tuple[str, str]] = []
        self.chatted: list[Exchange] = []
        self.why_told = False
        relation = story.relation
        self.registers = {
            "A": relation.asker,
            "B": relation.answerer,
            "C": relation.asker if relation.bystander is None else relation.bystander,
        }
        self.first = "A" if story.layout.asker_first else "B"
        self._open()
        self._request()
        for move in _PLOTS[story.ending]:
            move(self)
        self._close()

    def text(self) -> str:
        numbers = {self.first: 1, _other(self.first): 2, "C": 3}
        return "\n".join(f"#Person{numbers[speaker]}#: {line}" for speaker, line in self.turns)

    # --- adding lines ---

    def choose(self, what: str, choices: tuple[_Choice, ...]) -> _Choice:
        """Choose by the story's wording and the move alone, so that other moves do not shift this one."""
        digest = hashlib.blake2b(f"{self.story.layout.wording} {what}".encode(), digest_size=4).digest()
        return choices[int.from_bytes(digest, "big") % len(choices)]

    def line(
        self, speaker: str, template: str, register: Register | None = None, **facts: Noun | Verb
    ) -> str:
        level = self.registers[speaker] if register is None else register
        return in_register(template, level).format_map({**self.story.told, **facts})

    def say(self, speaker: str, text: str) -> None:
        if self.turns and self.turns[-1][0] == speaker:
            text = f"{self.turns.pop()[1]} {text}"
        self.turns.append((speaker, text))

    def move(self, speaker: str, name: str, choices: tuple[str, ...]) -> None:
        self.say(speaker, self.line(speaker, self.choose(name, choices)))

    def exchange(self, lines: Exchange) -> None:
        last = self.turns[-1][0] if self.turns else _other(self.first)
        speakers = {"X": _other(last), "Y": _other(_other(last))}
        for line in lines:
            speaker = speakers.get(line[0], line[0])
            self.say(speaker, self.line(speaker, line[2:]))

    def aside(self, place: str) -> None:
        """Chat, if the layout wants it here; each place has its own subject, and the other person begins."""
        if place not in self.chatter:
            return
        last = self.turns[-1][0]
        subjects = [
            lines
            for lines in self.story.relation.chatter
            if lines not in self.chatted
            and lines[0][0] != last
            and not (self.story.third and lines[0][0] == "C")
        ]
        if subjects:
            self.chatted.append(self.choose(place, tuple(subjects)))
            self.exchange(self.chatted[-1])

    def personal_data(self, asked_by: str) -> None:
        details = tuple(lines for lines in self.story.scenario.details if lines[0][0] == asked_by)
        if "details" in self.chatter and details:
            self.exchange(self.choose("details", details))

    # --- the parts of a dialogue ---

    def _open(self) -> None:
        layout, relation = self.story.layout, self.story.relation
        if layout.opening:
            opens = relation.asker_opens if layout.asker_first else relation.answerer_opens
            self.exchange(self.choose("opening", relation.calls if layout.named else opens))
            self.aside("start")
        if not layout.asker_first or (self.turns and self.turns[-1][0] == "A"):
            self.move("B", "prompt", relation.prompts)

    def _request(self) -> None:
        layout, scenario = self.story.layout, self.story.scenario
        facts = dict(self.story.told)
        if layout.corrected:
            facts[scenario.key] = facts["wrong"]
        ask = in_register(self.choose("ask", scenario.asks), self.registers["A"]).format_map(facts)
        if layout.reason == "before":
            self.move("A", "begin with why", phrases.BEGIN_WITH_WHY)
            self.move("B", "hear why", phrases.HEAR_WHY)
            self.say("A", self.line("A", self.choose("why then", phrases.WHY_THEN)) + ask)
        elif layout.reason == "with":
            self.say("A", self.line("A", self.choose("why and", phrases.WHY_AND)) + ask)
        else:
            self.say("A", ask)
        if layout.corrected:
            self.move("B", "echo", phrases.ECHO)
            self.move("A", "correct", phrases.CORRECT)
        if layout.reason == "after":
            self.move("B", "ask why", scenario.why_questions or phrases.ASK_WHY)
            self.move("A", "tell why", phrases.TELL_WHY)
        if "pause" in self.chatter:
            self.exchange(self.choose("pause", self.story.relation.pauses))
        self.personal_data(asked_by="B")

    def tell_why_late(self) -> None:
        if self.story.layout.reason == "late" and not self.why_told:
            self.why_told = True
            self.move("A", "tell why late", phrases.TELL_WHY_LATE)

    def accept(self) -> None:
        self.move("B", "accept", self.story.scenario.accepts)

    def thank(self) -> None:
        self.move("A", "thank", phrases.THANK)
        self.tell_why_late()

    def refuse(self) -> None:
        refusal = self.story.told["hitch" if self.story.ending is Ending.PERSUADED else "refusal"]
        self.say("B", self.line("B", self.choose("refuse", phrases.REFUSE), refusal=refusal))

    def give_up(self) -> None:
        self.move("A", "give up", phrases.GIVE_UP)
        self.tell_why_late()

    def withdraw(self) -> None:
        if self.story.third:
            self.move("C", "bystander objects", phrases.BYSTANDER_OBJECTS)
            self.move("B", "give way", phrases.GIVE_WAY)
        else:
            self.move("B", "withdraw", phrases.WITHDRAW)

    def persuade(self) -> None:
        if self.story.third:  # on the asker's side, so at the asker's speech level
            template = self.choose("third pleads", phrases.THIRD_PLEADS)
            self.say("C", self.line("C", template, self.registers["A"]))
        else:
            self.tell_why_late()
            self.move("A", "plead", phrases.PLEAD)
        self.move("B", "relent", phrases.RELENT)

    def offer(self) -> None:
        self._offer_after(phrases.HITCH)

    def offer_after_all(self) -> None:
        self._offer_after(phrases.LATE_HITCH)

    def _offer_after(self, hitches: tuple[str, ...]) -> None:
        hitch = self.line("B", self.choose("hitch", hitches))
        self.say("B", hitch + self.line("B", self.choose("offer", self.story.scenario.offers)))

    def take(self) -> None:
        self.move("A", "take", phrases.TAKE)
        self.tell_why_late()

    def decline(self) -> None:
        self.tell_why_late()
        self.move("A", "decline", phrases.DECLINE)

    def acknowledge(self) -> None:
        self.move("B", "acknowledge", phrases.ACKNOWLEDGE)

    def amend(self) -> None:
        changer = self.choose("changer", tuple(self.story.scenario.amenders))
        if changer == "A":
            self.acknowledge()
        self.aside("change")
        self.move(changer, "amend", phrases.AMEND)
        self.move(_other(changer), "agree", phrases.AGREE)

    def change_subject(self) -> None:
        self.aside("change")

    def _close(self) -> None:
        if self.story.ending not in _WITHOUT_RESULT:
            self.personal_data(asked_by="A")
        self.aside("end")
        if self.story.layout.closing or len(self.turns) < MIN_TURNS:
            self.exchange(self.choose("closing", self.story.relation.closings))


def _other(speaker: str) -> str:
    return "B" if speaker == "A" else "A"


_PLOTS: dict[Ending, tuple[Callable[[_Telling], None], ...]] = {
    Ending.ACCEPTED: (_Telling.accept, _Telling.thank),
    Ending.REFUSED: (_Telling.refuse, _Telling.give_up),
    Ending.TAKEN: (_Telling.offer, _Telling.take),
    Ending.DECLINED: (_Telling.offer, _Telling.decline, _Telling.acknowledge),
    Ending.WITHDRAWN: (
        _Telling.accept, _Telling.thank, _Telling.change_subject, _Telling.withdraw, _Telling.give_up,
    ),
    Ending.PERSUADED: (_Telling.refuse, _Telling.persuade, _Telling.thank),
    Ending.AMENDED: (_Telling.offer, _Telling.take, _Telling.amend),
    Ending.MOVED: (
        _Telling.accept, _Telling.thank, _Telling.change_subject, _Telling.offer_after_all, _Telling.take,
    ),
}  # fmt: skip
