"""Scenarios among neighbours and strangers: noise, a badly parked car, a second-hand sale."""

from __future__ import annotations

from trainables.samples.korean import Verb, did
from trainables.samples.relations import NEIGHBOURS, STRANGERS
from trainables.samples.scenario import Scenario, nouns

_NOISE = Scenario(
    topic="이웃 소음",
    relations=(NEIGHBOURS,),
    slots={
        "time<alt2<alt": nouns("저녁 7시, 저녁 8시, 밤 9시, 밤 10시, 밤 11시"),
        "noise": nouns("피아노 소리, 음악 소리, 청소기 소리, 세탁기 소리"),
    },
    key="time",
    reasons=(
        Verb("아기가 자야 하다"),
        Verb("아이가 시험공부를 하다"),
        Verb("새벽에 출근해야 하다"),
        Verb("요즘 잠을 못 자다"),
        Verb("어머니가 아프시다"),
    ),
    asks=(
        "{time}부터는 {noise:을} 좀 줄여 주세요.",
        "{noise:이} 너무 커요. {time}부터는 줄여 주실 수 있어요?",
    ),
    asked="{time}부터 {noise:을} 줄여 달라고 했다",
    accepts=("네, 이제 {time}부터는 조용히 할게요.", "아, 몰랐어요. 앞으로 조심할게요."),
    agreed=Verb("{time}부터 조용히 하다"),
    refusals=(
        Verb("낮에는 시간이 없다"),
        did("손님이 오기로 하다"),
        Verb("그때만 시간이 있다"),
        Verb("{time}부터 연습해야 하다"),
    ),
    hitches=(Verb("퇴근이 늦다"), Verb("낮에는 집에 없다"), Verb("저녁을 늦게 먹다")),
    offers=("{alt}부터 조용히 하면 어떨까요?", "{alt}부터는 어떠세요?"),
    offered=Verb("{alt}부터 조용히 하겠다고 하다"),
    settled="했지만 결국 {alt2}부터 조용히 하기로 했다",
    amenders="A",
    objections=(Verb("{alt:은} 너무 늦다"), Verb("아이가 일찍 자다"), Verb("{alt}에는 모두 자고 있다")),
    pleas=(Verb("방음 공사비를 반씩 내다"), Verb("아침에 조용히 하다"), Verb("과일을 가져오다")),
)

_PARKING = Scenario(
    topic="주차 문제",
    relations=(NEIGHBOURS,),
    slots={
        "alt alt2": nouns("10분 뒤, 20분 뒤, 30분 뒤, 한 시간 뒤, 두 시간 뒤"),
        "spot": nouns("정문 앞, 창고 앞, 가게 앞, 골목 입구"),
        "car": nouns("#CarNumber#"),
    },
    key="spot",
    reasons=(
        Verb("병원에 급히 가야 하다"),
        Verb("지금 출근해야 하다"),
        Verb("이삿짐 차가 들어와야 하다"),
        Verb("차가 나갈 수 없다"),
    ),
    asks=(
        "{spot}에 세우신 {car} 차 좀 빼 주세요.",
        "{car} 차가 {spot}에 있는데 좀 빼 주실 수 있어요?",
    ),
    asked="{spot}에 세운 {car} 차를 빼 달라고 했다",
    accepts=("네, 지금 바로 뺄게요.", "아, 몰랐어요. 바로 내려갈게요."),
    agreed=Verb("차를 바로 빼다"),
    refusals=(did("남편이 열쇠를 가져가다"), did("차가 고장 나다"), did("술을 마시다")),
    hitches=(Verb("회의가 곧 시작되다"), Verb("아이가 혼자 있다"), Verb("손님이 곧 오다")),
    offers=("{alt}에 빼도 될까요?", "{alt:은} 어떠세요?"),
    offered=Verb("{alt}에 빼겠다고 하다"),
    settled="했지만 결국 {alt2}에 빼기로 했다",
    objections=(Verb("그때는 너무 늦다"), Verb("더 기다릴 수 없다"), Verb("시간이 없다")),
    pleas=(Verb("뒤에서 돕다"), Verb("열쇠를 가지러 가다"), Verb("금방 끝내다")),
)

_SALE = Scenario(
    topic="중고 거래",
    relations=(STRANGERS,),
    slots={
        "price<alt2<alt": nouns("3만 원, 4만 원, 5만 원, 6만 원, 7만 원"),
        "thing": nouns("자전거, 책상, 카메라, 의자, 텐트"),
    },
    key="price",
    reasons=(
        Verb("돈이 모자라다"),
        Verb("긁힌 자국이 있다"),
        Verb("다른 데는 더 싸다"),
        Verb("색이 마음에 들지 않다"),
    ),
    asks=("{thing:을} {price}에 주실 수 있어요?", "{thing:을} {price}에 사고 싶어요."),
    asked="{thing:을} {price}에 팔라고 했다",
    accepts=("네, 그럼 그 값에 드릴게요.", "좋아요. {price}에 가져가세요."),
    agreed=Verb("{price}에 팔다"),
    refusals=(
        did("얼마 쓰지 않다"),
        did("{friend:과} 먼저 약속하다"),
        did("이미 값을 많이 내리다"),
        Verb("사겠다는 사람이 많다"),
    ),
    hitches=(did("얼마 쓰지 않다"), did("비싸게 사다"), Verb("아직 상태가 좋다")),
    offers=("{alt:은} 어떠세요?", "{alt}에 사시면 어떨까요?"),
    offered=Verb("{alt:을} 달라고 하다"),
    settled="했고 두 사람은 결국 {alt2}에 거래하기로 했다",
    amenders="A",
    objections=(Verb("{alt:은} 너무 비싸다"), Verb("그만한 돈이 없다"), Verb("새것도 {alt}에 살 수 있다")),
    pleas=(Verb("직접 가지러 가다"), Verb("오늘 바로 사다"), Verb("현금으로 내다")),
    why_questions=("왜 그 값을 생각하셨어요?", "이유가 있으세요?"),
    details=(
        ("A 어디로 가면 돼요?", "B #Address#로 오세요."),
        ("A 연락처를 알려 주세요.", "B #PhoneNumber#예요."),
    ),
)

NEARBY = (_NOISE, _PARKING, _SALE)
