import csv
import hashlib
import math
import os
import random
import re
import string
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dure.errors import UserError
from trainables.samples import write_sample
from trainables.samples.dialogues import MAX_DIALOGUES, dialogue_corpus
from trainables.samples.korean import (
    Noun,
    Register,
    Verb,
    conjugate,
    did,
    final_consonant,
    in_register,
    with_particle,
)
from trainables.samples.scenario import Ending, Scenario
from trainables.samples.scenarios import SCENARIOS
from trainables.samples.story import (
    draw_story,
    may_have_third,
    outcome_template,
    request_template,
    summarise,
)
from trainables.samples.telling import tell

REVISED = (Ending.WITHDRAWN, Ending.PERSUADED, Ending.AMENDED, Ending.MOVED)


@pytest.fixture(scope="module")
def corpus():
    return dialogue_corpus()


@pytest.fixture(scope="module")
def rows(corpus):
    return [row for split in corpus.values() for row in split]


def words(text):
    return [word.strip(".,?:") for word in text.split()]


def overlap(prediction, reference):
    """F1 of character bigrams, which sees through particles and endings."""
    ours, truth = (
        Counter(text[start : start + 2] for start in range(len(text) - 1)) for text in (prediction, reference)
    )
    common = (ours & truth).total()
    return 2 * common / (ours.total() + truth.total())


# --- Korean ---


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("우산", "우산은 우산이 우산을 우산과 우산으로 우산이야 우산이에요"),
        ("모자", "모자는 모자가 모자를 모자와 모자로 모자야 모자예요"),
        ("일요일", "일요일은 일요일이 일요일을 일요일과 일요일로 일요일이야 일요일이에요"),
        (
            "#Person1#",
            "#Person1#은 #Person1#이 #Person1#을 #Person1#과 #Person1#로 #Person1#이야 #Person1#이에요",
        ),
        (
            "#Person2#",
            "#Person2#는 #Person2#가 #Person2#를 #Person2#와 #Person2#로 #Person2#야 #Person2#예요",
        ),
        (
            "#Person3#",
            "#Person3#은 #Person3#이 #Person3#을 #Person3#과 #Person3#으로 #Person3#이야 #Person3#이에요",
        ),
    ],
)
def test_particles_follow_the_final_consonant_as_it_is_read(noun, expected):
    template = "{0:은} {0:이} {0:을} {0:과} {0:로} {0:이야} {0:이에요}"
    assert template.format(Noun(noun)) == expected


@given(st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), min_size=1))
def test_every_hangul_word_takes_exactly_one_form_of_a_particle(word):
    consonant = final_consonant(word) != " "
    assert with_particle(word, "은") == word + ("은" if consonant else "는")
    assert with_particle(word, "로") == word + (
        "으로" if consonant and final_consonant(word) != "ㄹ" else "로"
    )
    assert with_particle(word, "까지") == word + "까지"


def test_a_word_without_korean_reading_is_refused():
    with pytest.raises(ValueError, match="XYZ"):
        with_particle("XYZ", "은")


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        ("가다", "가서 가요 갑니다 가네요 갈게 가면 갔어"),
        ("오다", "와서 와요 옵니다 오네요 올게 오면 왔어"),
        ("주다", "줘서 줘요 줍니다 주네요 줄게 주면 줬어"),
        ("마시다", "마셔서 마셔요 마십니다 마시네요 마실게 마시면 마셨어"),
        ("되다", "돼서 돼요 됩니다 되네요 될게 되면 됐어"),
        ("쉬다", "쉬어서 쉬어요 쉽니다 쉬네요 쉴게 쉬면 쉬었어"),
        ("내다", "내서 내요 냅니다 내네요 낼게 내면 냈어"),
        ("일하다", "일해서 일해요 일합니다 일하네요 일할게 일하면 일했어"),
        ("바쁘다", "바빠서 바빠요 바쁩니다 바쁘네요 바쁠게 바쁘면 바빴어"),
        ("크다", "커서 커요 큽니다 크네요 클게 크면 컸어"),
        ("모르다", "몰라서 몰라요 모릅니다 모르네요 모를게 모르면 몰랐어"),
        ("들르다", "들러서 들러요 들릅니다 들르네요 들를게 들르면 들렀어"),
        ("무겁다", "무거워서 무거워요 무겁습니다 무겁네요 무거울게 무거우면 무거웠어"),
        ("돕다", "도와서 도와요 돕습니다 돕네요 도울게 도우면 도왔어"),
        ("입다", "입어서 입어요 입습니다 입네요 입을게 입으면 입었어"),
        ("듣다", "들어서 들어요 듣습니다 듣네요 들을게 들으면 들었어"),
        ("받다", "받아서 받아요 받습니다 받네요 받을게 받으면 받았어"),
        ("붓다", "부어서 부어요 붓습니다 붓네요 부을게 부으면 부었어"),
        ("멀다", "멀어서 멀어요 멉니다 머네요 멀게 멀면 멀었어"),
        ("없다", "없어서 없어요 없습니다 없네요 없을게 없으면 없었어"),
    ],
)
def test_verbs_take_endings_as_korean_grammar_wants_them(verb, expected):
    template = "{0:아서} {0:아요} {0:습니다} {0:네요} {0:을게} {0:으면} {1:아}"
    assert template.format(Verb(verb), did(verb)) == expected


def test_a_past_clause_keeps_its_tense_except_before_aseo():
    verb = did("{thing:을} 잃어버리다").filled({"thing": Noun("모자")})
    assert f"{verb:습니다} {verb:네요} {verb:거든} {verb:아서}" == (
        "모자를 잃어버렸습니다 모자를 잃어버렸네요 모자를 잃어버렸거든 모자를 잃어버려서"
    )


@given(st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), min_size=1, max_size=4))
def test_any_stem_takes_any_ending_and_stays_hangul(stem):
    for ending in ("아서", "았다", "습니다", "네요", "을게", "으면", "기로"):
        assert re.fullmatch("[가-힣]+", conjugate(stem, ending))


def test_brackets_give_each_speech_level_its_form():
    levels = [in_register("[응|네], [좋아|좋아요|좋습니다].", level) for level in Register]
    assert levels == ["응, 좋아.", "네, 좋아요.", "네, 좋습니다."]


# --- the corpus ---


def test_the_corpus_is_as_large_as_asked():
    corpus = dialogue_corpus()
    assert {split: len(rows) for split, rows in corpus.items()} == {"train": 2600, "dev": 200, "test": 200}
    assert [row.fname for row in corpus["dev"][:2]] == ["dev_0", "dev_1"]


def test_no_dialogue_and_no_summary_occurs_twice_in_the_corpus_or_among_splits(rows):
    assert len({row.dialogue for row in rows}) == len({row.summary for row in rows}) == len(rows) == 3000


def num_summaries(scenarios=SCENARIOS) -> int:
    """Count the different summaries that the grammar can write about these scenarios.

    Counted are who asks (first or second speaker), the request, the reason, the ending and what it tells. Not counted
    are wording, layout, a name in place of ``#Person2#``, and slots that only a reason or a refusal names, so
    the true number is larger.
    """
    return sum(
        2 * _num_told(scenario, ending, third=third)  # either of the two may be the asker
        for scenario in scenarios
        for ending in Ending
        for third in ((False, True) if _third_is_told(scenario, ending) else (False,))
    )


def _third_is_told(scenario: Scenario, ending: Ending) -> bool:
    return ending is Ending.PERSUADED and any(
        may_have_third(relation, ending) for relation in scenario.relations
    )


def _num_told(scenario: Scenario, ending: Ending, *, third: bool) -> int:
    """Count the ways to fill the slots and clauses that the summary of this ending names."""
    choices = {
        "reason": len(scenario.reasons),
        "refusal": len(scenario.refusals),
        "hitch": len(scenario.hitches),
        "objection": len(scenario.objections),
        "plea": len(scenario.pleas),
    }
    told = _fields(request_template(scenario)) | _fields(outcome_template(scenario, ending, third=third))
    if "agreed" in told:
        told |= _fields(scenario.agreed.phrase)
    if "offered" in told:
        told |= _fields(scenario.offered.phrase)
    count = math.prod(number for name, number in choices.items() if name in told)
    for names, pool in scenario.slots.items():
        used = len(told.intersection(names.replace("<", " ").split()))
        count *= math.comb(len(pool), used) if "<" in names else math.perm(len(pool), used)
    return count


def _fields(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def test_the_grammar_holds_far_more_stories_than_a_corpus_can_ask_for():
    assert num_summaries() > 5 * MAX_DIALOGUES
    assert all(num_summaries([scenario]) > 2 * MAX_DIALOGUES / len(SCENARIOS) for scenario in SCENARIOS)


def test_the_space_of_the_grammar_is_counted_exactly_where_it_can_be_walked():
    (parking,) = (scenario for scenario in SCENARIOS if scenario.topic == "주차 문제")
    rng = random.Random(1)
    summaries = {summarise(draw_story(rng, parking)) for _ in range(30_000)}
    assert 0.95 * num_summaries([parking]) < len(summaries) <= num_summaries([parking])


@pytest.mark.parametrize("sizes", [{"num_train": -1}, {"num_test": MAX_DIALOGUES}])
def test_impossible_sizes_are_told(sizes):
    with pytest.raises(UserError, match="sizes"):
        dialogue_corpus(**sizes)


def test_one_seed_gives_one_corpus_in_every_process_and_another_seed_another():
    program = (
        "import hashlib; from trainables.samples.dialogues import dialogue_corpus as corpus\n"
        "print(hashlib.sha256(repr(corpus(seed=7, num_train=200)).encode()).hexdigest())"
    )
    here = hashlib.sha256(repr(dialogue_corpus(seed=7, num_train=200)).encode()).hexdigest()
    for hash_seed in ("0", "1234"):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": hash_seed,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        told = subprocess.run(
            [sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True
        )
        assert told.stdout.strip() == here
    assert dialogue_corpus(seed=8, num_train=200) != dialogue_corpus(seed=7, num_train=200)


def test_training_rows_do_not_change_when_other_splits_grow():
    assert dialogue_corpus(num_dev=5, num_test=5)["train"] == dialogue_corpus(num_dev=9, num_test=0)["train"]


@given(st.integers(min_value=0))
def test_every_dialogue_has_4_to_16_turns_of_at_most_three_speakers_in_turn(seed):
    dialogue = tell(draw_story(random.Random(seed)))
    turns = [re.fullmatch(r"#Person([123])#: (\S.*[.?])", line) for line in dialogue.split("\n")]
    assert 4 <= len(turns) <= 16
    assert all(turns)
    speakers = [turn.group(1) for turn in turns]
    assert speakers[0] == "1"
    assert {"1", "2"} <= set(speakers)
    assert all(one != next_one for one, next_one in pairwise(speakers))
    assert not re.search(r"[{}\[\]|]|  ", dialogue)


@given(st.integers(min_value=0))
def test_every_summary_is_two_plain_sentences_that_name_both_people(seed):
    story = draw_story(random.Random(seed))
    summary = summarise(story)
    assert re.fullmatch(r"[^.]+다\. [^.]+다\.", summary)
    assert story.people["asker"] in summary
    assert story.people["answerer"] in summary
    assert not re.search(r"[{}\[\]|]|  ", summary)


@given(st.integers(min_value=0))
def test_particles_after_speakers_are_those_of_the_numbers_read_in_korean(seed):
    summary = summarise(draw_story(random.Random(seed)))
    assert not re.search(r"#Person[13]#(는|가|를|와)\b|#Person2#(은|이|을|과)\b", summary)


def test_people_of_one_relation_keep_their_speech_level(rows):
    informal = re.compile(r"(?:어|해|자|야|래|돼|게|지|네|거든)[.?]$")
    formal = re.compile(r"(?:니다|니까|시오)[.?]$")
    for row in rows:
        for speaker in ("1", "2"):
            said = re.findall(rf"^#Person{speaker}#: (.*)$", row.dialogue, re.MULTILINE)
            endings = [sentence for line in said for sentence in re.findall(r"[^.?]+[.?]", line)]
            casual, stiff = (
                sum(bool(form.search(ending)) for ending in endings) for form in (informal, formal)
            )
            assert not (casual and stiff), row.dialogue


def test_the_corpus_is_varied_and_small_enough_for_a_small_model(rows):
    topics = Counter(row.topic for row in rows)
    assert len(topics) >= 8
    assert min(topics.values()) > len(rows) / len(topics) / 2
    assert len({word for row in rows for word in words(row.dialogue)}) <= 1550
    assert mean(len(row.summary.split()) <= 25 for row in rows) > 0.9
    assert max(len(row.summary.split()) for row in rows) <= 32
    assert max(len(row.dialogue.split()) for row in rows) <= 120


def test_masked_tokens_stand_where_people_would_say_them(rows):
    for token in ("#PhoneNumber#", "#Address#", "#CarNumber#", "#CardNumber#", "#Email#", "#DateOfBirth#"):
        assert any(token in row.dialogue for row in rows)
    assert any("#Address#" in row.summary for row in rows)
    assert any("#CarNumber#" in row.summary for row in rows)
    assert any("#Person3#" in row.summary for row in rows)


def test_every_number_and_day_of_a_summary_is_in_its_dialogue(rows):
    for row in rows:
        for value in re.findall(r"[월화수목금토일]요일|\d+시|\d+만 원|\d+분", row.summary):
            assert value in row.dialogue


# --- the summary follows from the content ---


def test_leading_and_last_turns_are_far_from_the_summary(rows):
    def score(choose):
        return mean(overlap(" ".join(choose(row.dialogue.split("\n"))), row.summary) for row in rows)

    baselines = {f"lead-{count}": score(lambda turns, k=count: turns[:k]) for count in (1, 2, 3)}
    baselines |= {f"last-{count}": score(lambda turns, k=count: turns[-k:]) for count in (1, 2, 3)}
    baselines["longest"] = score(lambda turns: [max(turns, key=len)])
    assert max(baselines.values()) < 0.5, baselines


def test_another_ending_of_the_same_turns_has_another_summary():
    rng = random.Random(3)
    for scenario in SCENARIOS:
        story = replace(draw_story(rng, scenario), third=False)
        accepted, withdrawn, moved = (
            replace(story, ending=ending) for ending in (Ending.ACCEPTED, Ending.WITHDRAWN, Ending.MOVED)
        )
        turns = set(tell(accepted).split("\n"))
        for other in (withdrawn, moved):
            assert len(turns & set(tell(other).split("\n"))) >= len(turns) - 3
        assert len({summarise(replace(story, ending=ending)) for ending in Ending}) == len(Ending)


def test_who_asks_and_how_it_is_told_varies_and_only_names_change_the_summary():
    rng = random.Random(5)
    for _ in range(200):
        story = draw_story(rng)
        other = draw_story(rng, story.scenario).layout
        retold = replace(
            story, layout=replace(other, asker_first=story.layout.asker_first, named=story.layout.named)
        )
        assert summarise(retold) == summarise(story)
        turned = replace(story, layout=replace(story.layout, asker_first=not story.layout.asker_first))
        assert summarise(turned) != summarise(story)


def test_the_ending_cannot_be_read_from_the_first_answer_or_the_last_turn():
    rng = random.Random(11)
    stories = [draw_story(rng) for _ in range(4000)]
    assert mean(story.ending in REVISED for story in stories) > 0.45
    by_last_turn: dict[str, Counter[Ending]] = {}
    for story in stories:
        by_last_turn.setdefault(tell(story).rsplit("\n", 1)[-1], Counter())[story.ending] += 1
    guessed = sum(max(endings.values()) for endings in by_last_turn.values()) / len(stories)
    assert guessed < 0.5


def test_a_request_stands_at_many_places_of_a_dialogue():
    rng = random.Random(13)
    places = Counter()
    for _ in range(1000):
        story = draw_story(rng)
        asks = "12"[not story.layout.asker_first]
        spoken = [line for line in tell(story).split("\n") if line.startswith(f"#Person{asks}#")]
        places[tell(story).split("\n").index(max(spoken, key=len))] += 1
    assert sum(count > 30 for count in places.values()) >= 6


# --- files ---


def test_written_files_read_back_as_the_corpus_and_the_test_set_hides_its_summaries(corpus, tmp_path):
    paths = write_sample("dialogues", tmp_path / "sample")
    assert {path.name for path in (tmp_path / "sample").iterdir()} == {
        "train.csv",
        "dev.csv",
        "test.csv",
        "test_reference.csv",
    }
    tables = {}
    for name, path in paths.items():
        with path.open(encoding="utf-8", newline="") as file:
            tables[name] = list(csv.DictReader(file))
    for split in ("train", "dev"):
        assert tables[split] == [
            {"fname": row.fname, "dialogue": row.dialogue, "summary": row.summary, "topic": row.topic}
            for row in corpus[split]
        ]
    assert tables["test"] == [
        {"fname": row.fname, "dialogue": row.dialogue, "topic": row.topic} for row in corpus["test"]
    ]
    assert tables["test_reference"] == [
        {"fname": row.fname, "summary": row.summary} for row in corpus["test"]
    ]
    assert "\n#Person2#: " in paths["test"].read_text(encoding="utf-8")
