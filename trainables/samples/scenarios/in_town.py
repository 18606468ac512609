"""Scenarios with people who serve: a refund, a table, a delivery, a lost thing, a clinic."""

from __future__ import annotations

from trainables.samples.korean import Verb, did
from trainables.samples.relations import CLINIC, COUNTER, TELEPHONE
from trainables.samples.scenario import DAYS, Scenario, nouns

_PHONE_NUMBER = (
    ("B 연락처를 말씀해 주시겠습니까?", "A #PhoneNumber#예요."),
    ("B 전화번호를 확인하겠습니다. #PhoneNumber#입니까?", "A 네, 맞아요."),
)

_REFUND = Scenario(
    topic="환불 요청",
    relations=(COUNTER,),
    slots={
        "day": DAYS,
        "alt alt2": nouns("교환, 포인트, 상품권"),
        "thing": nouns("운동화, 구두, 코트, 바지, 모자, 장갑"),
    },
    key="day",
    reasons=(
        Verb("크기가 맞지 않다"),
        Verb("색이 마음에 들지 않다"),
        did("한 번 쓰고 뜯어지다"),
        did("같은 것을 선물로 받다"),
    ),
    asks=("{day}에 산 {thing:을} 환불해 주세요.", "{day}에 여기서 산 {thing:을} 환불할 수 있어요?"),
    asked="{day}에 산 {thing:을} 환불해 달라고 했다",
    accepts=("네, 바로 환불해 드리겠습니다.", "알겠습니다. 카드를 주시면 환불해 드리겠습니다."),
    agreed=Verb("환불해 주다"),
    refusals=(
        Verb("영수증이 없다"),
        did("환불 기간이 지나다"),
        Verb("사용한 자국이 있다"),
        did("상표가 떨어지다"),
    ),
    hitches=(did("환불 기간이 지나다"), Verb("사용한 자국이 있다"), Verb("할인 상품은 환불할 수 없다")),
    offers=("{alt:은} 어떠십니까?", "{alt:은} 가능합니다만, 괜찮으십니까?"),
    offered=Verb("{alt:을} 권하다"),
    settled="했고 {asker:은} 결국 {alt2:을} 받기로 했다",
    amenders="A",
    objections=(Verb("다시 올 시간이 없다"), Verb("이 가게를 믿을 수 없다"), Verb("돈이 꼭 필요하다")),
    pleas=(Verb("카드 내역을 가져오다"), Verb("본사에 전화하다"), Verb("다른 물건을 사다")),
    why_questions=("어떤 문제가 있으십니까?", "이유를 여쭤봐도 되겠습니까?"),
    details=(
        ("B 카드 번호를 확인하겠습니다. #CardNumber#입니까?", "A 네, 맞아요."),
        ("B 연락처를 말씀해 주시겠습니까?", "A #PhoneNumber#예요."),
    ),
)

_TABLE = Scenario(
    topic="식당 예약",
    relations=(TELEPHONE,),
    slots={
        "time alt alt2": nouns("낮 12시, 낮 1시, 저녁 6시, 저녁 7시, 저녁 8시"),
        "day": DAYS,
        "size": nouns("네 명, 여섯 명, 여덟 명, 열 명"),
    },
    key="time",
    reasons=(
        Verb("회사 회식이 있다"),
        Verb("부모님 생신이 있다"),
        did("아이가 졸업하다"),
        did("친구가 귀국하다"),
    ),
    asks=(
        "{day} {time}에 {size} 자리를 예약해 주세요.",
        "{day} {time}에 {size:이} 앉을 자리를 예약할 수 있어요?",
    ),
    asked="{day} {time}에 {size} 자리를 예약해 달라고 했다",
    accepts=("네, 그렇게 예약해 드리겠습니다.", "네, {time} 자리가 있습니다. 예약되었습니다."),
    agreed=Verb("자리를 예약해 주다"),
    refusals=(
        Verb("{time}에는 자리가 없다"),
        Verb("{day}에는 가게가 쉬다"),
        did("예약이 모두 끝나다"),
        Verb("{size:은} 앉을 수 없다"),
    ),
    hitches=(Verb("{time}에는 자리가 없다"), Verb("{time}에 단체 손님이 있다"), Verb("예약이 많다")),
    offers=("{alt:은} 어떠십니까?", "{alt}에 오시면 어떻겠습니까?"),
    offered=Verb("{alt:을} 권하다"),
    settled="했고 {asker:은} 결국 {alt2}에 예약하기로 했다",
    amenders="A",
    objections=(
        Verb("{alt}에는 다른 일이 있다"),
        Verb("{alt}에는 모두 모일 수 없다"),
        Verb("{alt:은} 아이들이 힘들다"),
    ),
    pleas=(
        Verb("돈을 먼저 내다"),
        Verb("두 자리로 나눠 앉다"),
        Verb("한 시간 안에 나가다"),
        Verb("비싼 요리를 시키다"),
    ),
    why_questions=("어떤 모임이십니까?", "특별한 날이십니까?"),
    details=_PHONE_NUMBER,
)

_DELIVERY = Scenario(
    topic="배송 문의",
    relations=(TELEPHONE,),
    slots={
        "day alt alt2": DAYS,
        "thing": nouns("냉장고, 침대, 책상, 세탁기, 의자"),
        "address": nouns("#Address#"),
    },
    key="day",
    reasons=(
        did("지난주에 이사를 하다"),
        did("쓰던 게 고장 나다"),
        Verb("주말에 손님이 오다"),
        Verb("곧 아기가 태어나다"),
    ),
    asks=("{thing:을} {day}에 {address:로} 보내 주세요.", "{day}에 {address}에서 {thing:을} 받을 수 있어요?"),
    asked="{thing:을} {day}에 {address:로} 보내 달라고 했다",
    accepts=("네, {day}에 보내 드리겠습니다.", "알겠습니다. 그렇게 보내 드리겠습니다."),
    agreed=Verb("{day}에 보내 주다"),
    refusals=(did("물건이 다 팔리다"), Verb("그 동네에는 가지 않다"), did("길이 눈으로 막히다")),
    hitches=(Verb("{day}에는 차가 없다"), Verb("기사가 모자라다"), did("물건이 아직 들어오지 않다")),
    offers=("{alt}에 보내 드려도 되겠습니까?", "{alt:은} 어떠십니까?"),
    offered=Verb("{alt}에 보내겠다고 하다"),
    settled="했고 {asker:은} 결국 {alt2}에 받기로 했다",
    objections=(
        Verb("{alt}에는 집에 아무도 없다"),
        Verb("{alt}에는 출근해야 하다"),
        Verb("더 기다릴 수 없다"),
    ),
    pleas=(Verb("배송비를 더 내다"), Verb("집 앞에서 받다"), Verb("밤까지 기다리다")),
    why_questions=("급하신 이유가 있으십니까?", "이유를 여쭤봐도 되겠습니까?"),
    details=_PHONE_NUMBER,
)

_LOST = Scenario(
    topic="분실물 문의",
    relations=(TELEPHONE, COUNTER),
    slots={
        "alt alt2": DAYS,
        "place": nouns("지하철, 버스, 도서관, 극장, 공원, 식당"),
        "thing": nouns("지갑, 우산, 모자, 안경, 노트북, 가방"),
    },
    key="place",
    reasons=(
        did("선물로 받다"),
        did("아버지께 빌리다"),
        Verb("내일 꼭 써야 하다"),
        did("산 지 얼마 안 되다"),
    ),
    asks=(
        "{place}에서 잃어버린 {thing:을} 찾고 싶어요.",
        "어제 {place}에서 {thing:을} 잃어버렸어요. 좀 찾아 주세요.",
    ),
    asked="{place}에서 잃어버린 {thing:을} 찾아 달라고 했다",
    accepts=("네, 바로 찾아 드리겠습니다.", "알겠습니다. 찾아 드리겠습니다."),
    agreed=Verb("{thing:을} 찾아 주다"),
    refusals=(
        Verb("들어온 물건이 없다"),
        did("다른 사람이 가져가다"),
        Verb("이름표가 다르다"),
        did("이미 경찰에 보내다"),
    ),
    hitches=(Verb("담당자가 자리에 없다"), Verb("창고를 정리하고 있다"), Verb("창고 열쇠가 없다")),
    offers=("{alt}에 오시면 어떻겠습니까?", "{alt:은} 어떠십니까?"),
    offered=Verb("{alt}에 오라고 하다"),
    settled="했고 {asker:은} 결국 {alt2}에 가기로 했다",
    objections=(
        Verb("{alt}에는 출근해야 하다"),
        Verb("{alt}에는 병원에 가야 하다"),
        Verb("더 기다릴 수 없다"),
    ),
    pleas=(Verb("사진을 보내다"), Verb("더 자세히 설명하다"), Verb("신분증을 가져오다")),
    denied=Verb("찾아 줄 수 없다고 하다"),
    why_questions=("중요한 물건입니까?", "급하신 이유가 있으십니까?"),
    details=_PHONE_NUMBER,
)

_TREATMENT = Scenario(
    topic="병원 진료",
    relations=(CLINIC,),
    slots={
        "cure alt alt2": nouns("주사, 수액, 항생제, 진통제, 해열제"),
        "since": nouns("어제, 그저께, 월요일, 화요일"),
    },
    key="cure",
    reasons=(
        Verb("{since}부터 열이 높다"),
        did("{since}부터 목이 붓다"),
        Verb("{since}부터 온몸이 쑤시다"),
        Verb("{since}부터 머리가 아프다"),
    ),
    asks=("{cure:을} 받을 수 있어요?", "{cure:을} 주시면 좋겠어요."),
    asked="{cure:을} 달라고 했다",
    accepts=("네, {cure:을} 드릴게요.", "그렇게 하는 게 좋겠네요. 바로 준비할게요."),
    agreed=Verb("{cure:을} 주다"),
    refusals=(
        Verb("알레르기가 있다"),
        Verb("혈압이 높다"),
        did("지난주에도 {cure:을} 쓰다"),
        Verb("{cure:이} 다 떨어지고 없다"),
    ),
    hitches=(Verb("위가 약하다"), Verb("{cure:은} 너무 강하다"), Verb("{cure:은} 부작용이 있다")),
    offers=("{alt:은} 어떠세요?", "{alt:을} 드려도 될까요?"),
    offered=Verb("{alt:을} 권하다"),
    settled="했고 {asker:은} 결국 {alt2:을} 받기로 했다",
    amenders="B",
    objections=(
        Verb("{alt:은} 잘 듣지 않다"),
        did("지난번에 {alt:을} 쓰고 토하다"),
        Verb("{alt:은} 너무 비싸다"),
    ),
    pleas=(Verb("오늘만 쓰다"), Verb("내일 다시 오다"), Verb("집에서 푹 쉬다")),
    why_questions=("어디가 아프세요?", "증상이 어떠세요?"),
    details=(("B 생년월일이 어떻게 되세요?", "A #DateOfBirth#예요."),),
)

TOWN = (_REFUND, _TABLE, _DELIVERY, _LOST, _TREATMENT)
