"""Scenarios among friends and colleagues: an appointment, a loan, a trip."""

from __future__ import annotations

from trainables.samples.korean import Verb, did
from trainables.samples.relations import COLLEAGUES, FRIENDS
from trainables.samples.scenario import DAYS, Scenario, nouns

_APPOINTMENT = Scenario(
    topic="약속 변경",
    relations=(FRIENDS, COLLEAGUES),
    slots={"day new alt alt2": DAYS, "plan": nouns("점심 약속, 저녁 약속, 모임, 등산")},
    key="new",
    reasons=(
        did("갑자기 출장이 생기다"),
        did("감기에 걸리다"),
        Verb("병원에 가야 하다"),
        Verb("친척 결혼식이 있다"),
        Verb("이사를 해야 하다"),
    ),
    asks=(
        "{day} {plan:을} {new:로} [바꿀 수 있어|바꿀 수 있어요]?",
        "{day} {plan:을} {new:로} [미뤄도 돼|미뤄도 될까요]?",
    ),
    asked="{day} {plan:을} {new:로} 바꾸자고 했다",
    accepts=(
        "[그래, 그럼 {new}에 보자|네, 그럼 {new}에 봬요].",
        "[응, {new:도} 괜찮아|네, {new:도} 괜찮아요].",
    ),
    agreed=Verb("{new:로} 바꾸다"),
    refusals=(
        Verb("{new}에는 시험이 있다"),
        Verb("{new}에는 동생을 돌봐야 하다"),
        did("{new}에 다른 약속을 잡다"),
        Verb("{new}에는 가족 모임이 있다"),
    ),
    hitches=(
        Verb("{new}에는 시험이 있다"),
        Verb("{new}에는 동생을 돌봐야 하다"),
        Verb("{new}에는 치과에 가야 하다"),
    ),
    offers=("{alt:은} [어때|어떠세요]?", "{alt}에 만나는 건 [어때|어떠세요]?"),
    offered=Verb("{alt}에 만나자고 하다"),
    settled="했고 두 사람은 결국 {alt2}에 만나기로 했다",
    objections=(
        Verb("{alt}에는 동창회가 있다"),
        Verb("{alt}에는 일해야 하다"),
        Verb("{alt}에는 치과에 가야 하다"),
    ),
    pleas=(Verb("밥을 사다"), Verb("집 앞으로 가다"), Verb("영화표를 사다")),
)

_LOAN = Scenario(
    topic="물건 빌리기",
    relations=(FRIENDS, COLLEAGUES),
    slots={"alt2<alt<day": DAYS, "thing": nouns("카메라, 자전거, 노트북, 기타, 텐트")},
    key="day",
    reasons=(
        did("쓰던 게 고장 나다"),
        Verb("동아리 행사가 있다"),
        Verb("새로 살 돈이 없다"),
        Verb("과제에 꼭 필요하다"),
    ),
    asks=(
        "{thing:을} {day}까지 [빌려줄 수 있어|빌려주실 수 있어요]?",
        "{day}까지 {thing:을} 좀 [빌려도 돼|빌려도 될까요]?",
    ),
    asked="{thing:을} {day}까지 빌려 달라고 했다",
    accepts=("[그래, {day}까지 써|네, {day}까지 쓰세요].", "[응, 가져가도 돼|네, 가져가셔도 돼요]."),
    agreed=Verb("{thing:을} 빌려주다"),
    refusals=(
        Verb("동생이 쓰고 있다"),
        did("{friend:이} 먼저 빌려 가다"),
        did("수리를 맡기다"),
        did("동아리에 두고 오다"),
    ),
    hitches=(Verb("동생도 써야 하다"), did("{friend:과} 먼저 약속하다"), Verb("주말에 여행을 가야 하다")),
    offers=("{alt}까지는 [어때|어떠세요]?", "{alt}까지만 [쓸래|쓰실래요]?"),
    offered=Verb("{alt}까지 쓰라고 하다"),
    settled="했고 {asker:은} 결국 {alt2}까지 쓰기로 했다",
    amenders="B",
    objections=(
        Verb("{alt}까지는 너무 짧다"),
        Verb("{day}에 꼭 필요하다"),
        Verb("{alt}에는 돌려줄 수 없다"),
    ),
    pleas=(Verb("밥을 사다"), Verb("조심해서 쓰다"), Verb("돈을 내다")),
)

_TRIP = Scenario(
    topic="여행 계획",
    relations=(FRIENDS, COLLEAGUES),
    slots={
        "place alt alt2": nouns("제주도, 부산, 강릉, 경주, 여수"),
        "day": DAYS,
        "ride": nouns("기차, 버스, 자동차"),
    },
    key="day",
    reasons=(
        Verb("바다가 보고 싶다"),
        did("시험이 끝나다"),
        did("싼 표가 나오다"),
        did("요즘 일 때문에 지치다"),
    ),
    asks=(
        "{day}에 {ride:로} {place}에 [갈래|가실래요]?",
        "{day}에 {place:로} 여행 [가자|가요]. {ride:을} 타면 [금방이야|금방이에요].",
    ),
    asked="{day}에 {ride:로} {place}에 가자고 했다",
    accepts=(
        "[그래, 같이 가자|네, 같이 가요].",
        "[좋아, {place:은} 꼭 가 보고 싶었어|좋아요, {place:은} 꼭 가 보고 싶었어요].",
    ),
    agreed=Verb("{place}에 같이 가다"),
    refusals=(
        Verb("{day}에는 일해야 하다"),
        Verb("{day}에 할머니 생신이 있다"),
        Verb("{day}에 면접이 있다"),
        did("{day}에 다른 약속을 잡다"),
    ),
    hitches=(
        Verb("{place:은} 너무 멀다"),
        did("작년에 {place}에 가 보다"),
        Verb("{place:은} 사람이 너무 많다"),
    ),
    offers=("{alt:은} [어때|어떠세요]?", "{alt}에 가는 건 [어때|어떠세요]?"),
    offered=Verb("{alt}에 가자고 하다"),
    settled="했고 두 사람은 결국 {alt2}에 가기로 했다",
    objections=(
        Verb("{alt:은} 숙소가 비싸다"),
        Verb("{alt:은} 볼 것이 없다"),
        did("지난달에 {alt}에 다녀오다"),
    ),
    pleas=(Verb("숙소를 예약하다"), Verb("표를 사다"), Verb("밥을 사다")),
)

FRIENDLY = (_APPOINTMENT, _LOAN, _TRIP)
