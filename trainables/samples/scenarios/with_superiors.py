"""Scenarios with a teacher, a superior or an employer: homework, a day off, a job interview."""

from __future__ import annotations

from trainables.samples.korean import Verb, did
from trainables.samples.relations import INTERVIEW, OFFICE, SCHOOL
from trainables.samples.scenario import WEEKDAYS, Scenario, nouns

_HOMEWORK = Scenario(
    topic="숙제 기한",
    relations=(SCHOOL,),
    slots={"alt2<alt<day": WEEKDAYS, "paper": nouns("독후감, 보고서, 수학 숙제, 영어 숙제, 발표 자료")},
    key="day",
    reasons=(
        did("어제 많이 아프다"),
        did("노트북이 고장 나다"),
        did("할머니가 입원하시다"),
        did("자료를 잃어버리다"),
    ),
    asks=("{paper:을} {day}까지 내도 될까요?", "{paper:을} {day}까지 내고 싶어요."),
    asked="{paper:을} {day}까지 내게 해 달라고 했다",
    accepts=("그래, {day}까지 내라.", "그래, 그때까지 기다릴게."),
    agreed=Verb("{day}까지 기다리다"),
    refusals=(
        did("이미 한 번 미루다"),
        did("다른 학생들은 다 내다"),
        Verb("오늘 점수를 내야 하다"),
        did("한 달 전에 알려 주다"),
    ),
    hitches=(Verb("{day:은} 너무 늦다"), Verb("{day}에는 점수를 내야 하다"), Verb("{day}에는 학교에 없다")),
    offers=("{alt}까지는 어때?", "{alt}까지 낼 수 있겠니?"),
    offered=Verb("{alt}까지 내라고 하다"),
    settled="했고 {asker:은} 결국 {alt2}까지 내기로 했다",
    amenders="B",
    objections=(
        Verb("{alt}에는 병원에 가야 하다"),
        Verb("{alt}까지는 다 쓸 수 없다"),
        Verb("{alt}에는 시험이 있다"),
    ),
    pleas=(Verb("두 배로 쓰다"), Verb("먼저 발표하다"), Verb("교실 청소를 하다")),
)

_DAY_OFF = Scenario(
    topic="휴가 신청",
    relations=(OFFICE,),
    slots={"day alt alt2": WEEKDAYS},
    key="day",
    reasons=(
        Verb("건강 검진이 있다"),
        Verb("아이 졸업식이 있다"),
        Verb("이사를 해야 하다"),
        Verb("동생이 결혼하다"),
        Verb("어머니가 병원에 가셔야 하다"),
    ),
    asks=("{day}에 휴가를 써도 되겠습니까?", "{day}에 하루 쉬고 싶습니다."),
    asked="{day}에 쉬게 해 달라고 했다",
    accepts=("네, {day}에 쉬세요.", "네, 그렇게 하세요. 일은 걱정하지 마세요."),
    agreed=Verb("{day} 휴가를 허락하다"),
    refusals=(
        Verb("{day}에 감사가 있다"),
        Verb("일할 사람이 모자라다"),
        did("다른 직원들이 모두 휴가를 쓰다"),
        did("남은 휴가를 다 쓰다"),
    ),
    hitches=(
        Verb("{day}에 중요한 회의가 있다"),
        Verb("{day}에 손님이 오다"),
        did("{friend} 씨도 {day}에 휴가를 내다"),
    ),
    offers=("{alt:은} 어때요?", "{alt}에 쉬면 어때요?"),
    offered=Verb("{alt}에 쉬라고 하다"),
    settled="했고 {asker:은} 결국 {alt2}에 쉬기로 했다",
    objections=(
        Verb("날짜를 바꿀 수 없다"),
        Verb("{alt}에는 발표가 있다"),
        Verb("{alt}에는 아내가 출근하다"),
    ),
    pleas=(Verb("보고서를 먼저 끝내다"), Verb("주말에 나오다"), Verb("전화를 꼭 받다")),
)

_JOB = Scenario(
    topic="채용 면접",
    relations=(INTERVIEW,),
    slots={
        "branch alt alt2": nouns("서울 지점, 부산 지점, 대전 지점, 광주 지점, 제주 지점"),
        "day": WEEKDAYS,
    },
    key="branch",
    reasons=(
        Verb("일할 사람이 모자라다"),
        did("매장을 새로 열다"),
        did("직원이 그만두다"),
        Verb("주문이 많다"),
    ),
    asks=(
        "{day}부터 {branch}에서 일해 주시겠습니까?",
        "{branch}에 자리가 있습니다. {day}부터 나오실 수 있습니까?",
    ),
    asked="{day}부터 {branch}에서 일해 달라고 했다",
    accepts=("네, {day}부터 나가겠습니다.", "네, 열심히 하겠습니다."),
    agreed=Verb("{branch}에서 일하다"),
    refusals=(
        Verb("{day}에 졸업 시험이 있다"),
        Verb("{day}에 다른 면접이 있다"),
        Verb("{day}까지 지금 회사에 나가야 하다"),
        Verb("{day}부터 교육을 받아야 하다"),
    ),
    hitches=(
        Verb("{branch:은} 집에서 멀다"),
        Verb("{branch:은} 방값이 비싸다"),
        Verb("{branch:은} 교통이 불편하다"),
    ),
    offers=("{alt:은} 어떻겠습니까?", "{alt}에서 일해도 되겠습니까?"),
    offered=Verb("{alt}에서 일하고 싶다고 하다"),
    settled="했지만 결국 {alt2}에서 일하기로 했다",
    objections=(
        Verb("{alt}에는 자리가 없다"),
        Verb("{alt:은} 곧 문을 닫다"),
        did("{alt}에는 다른 사람을 뽑다"),
    ),
    pleas=(Verb("월급을 올리다"), Verb("방을 마련하다"), Verb("교통비를 내다")),
    why_questions=("급하신 이유가 있습니까?", "이유를 여쭤봐도 되겠습니까?"),
    details=(("A 안내문은 어디로 보내면 됩니까?", "B #Email#로 보내 주십시오."),),
)

DUTIES = (_HOMEWORK, _DAY_OFF, _JOB)
