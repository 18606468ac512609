"""What customers can say of shops, clothes, devices and lodgings: aspects with their praise and blame."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Aspect:
    """One side of a thing."""

    name: str
    """The noun that is judged."""
    good: tuple[str, ...]
    """Predicates of a good one, in the dictionary form."""
    bad: tuple[str, ...]
    """Predicates of a bad one."""


@dataclass(frozen=True)
class Domain:
    """A kind of thing that customers write about."""

    things: tuple[str, ...]
    """What it may be."""
    particle: str
    """The particle of the thing before ``met``."""
    met: str
    """How the customer came to know it, in the dictionary form."""
    aspects: tuple[Aspect, ...]
    """What can be judged."""
    facts: tuple[str, ...]
    """What can be asked, in the dictionary form."""
    services: tuple[str, ...]
    """What can be asked for, in the dictionary form."""
    ideas: tuple[str, ...]
    """What could be done better, in the dictionary form."""


_STAFF = Aspect("직원", ("친절하다", "상냥하다", "싹싹하다"), ("불친절하다", "무뚝뚝하다", "퉁명스럽다"))
_PRICE = Aspect("가격", ("저렴하다", "적당하다", "착하다"), ("비싸다", "부담스럽다", "터무니없다"))
_DELIVERY = Aspect("배송", ("빠르다", "정확하다"), ("늦다", "느리다"))
_PARCEL = Aspect("포장", ("깔끔하다", "꼼꼼하다"), ("지저분하다", "뜯겨 있다", "허술하다"))
_PARCEL_SERVICES = (
    "교환해 주다", "환불해 주다", "다시 보내 주다", "주문을 취소해 주다", "배송지를 바꿔 주다", "연락해 주다",
)  # fmt: skip

DOMAINS = (
    Domain(
        things=("국밥집", "분식집", "고깃집", "초밥집", "파스타 가게", "빵집", "카페", "칼국수집", "치킨집", "중국집"),
        particle="에",
        met="다녀오다",
        aspects=(
            Aspect(
                "음식",
                ("맛있다", "따뜻하다", "푸짐하다", "신선하다"),
                ("짜다", "식어 있다", "싱겁다", "느끼하다"),
            ),
            Aspect("자리", ("편하다", "넓다", "조용하다"), ("비좁다", "불편하다", "시끄럽다")),
            Aspect("음식이 나오는 속도", ("빠르다", "적당하다"), ("느리다", "답답하다")),
            Aspect("분위기", ("아늑하다", "편안하다"), ("어수선하다", "썰렁하다")),
            _STAFF,
            _PRICE,
        ),
        facts=(
            "예약할 수 있다", "주차할 수 있다", "포장할 수 있다", "아이 의자가 있다", "몇 시까지 하다", "휴일에도 하다",
            "단체석이 있다", "상품권을 받다",
        ),
        services=(
            "예약을 취소해 주다", "예약 시간을 바꿔 주다", "창가 자리를 잡아 주다", "영수증을 다시 보내 주다",
            "환불해 주다", "두고 온 우산을 맡아 주다",
        ),
        ideas=("아이 의자를 놓다", "메뉴를 늘리다", "번호표를 나누어 주다", "맵기를 고르게 하다", "작은 그릇도 팔다"),
    ),
    Domain(
        things=("셔츠", "코트", "바지", "원피스", "운동화", "가방", "모자", "스웨터", "치마", "양말"),
        particle="을",
        met="사다",
        aspects=(
            Aspect("색", ("예쁘다", "화사하다", "선명하다"), ("칙칙하다", "촌스럽다")),
            Aspect("바느질", ("꼼꼼하다", "튼튼하다"), ("엉성하다", "허술하다")),
            Aspect("사이즈", ("잘 맞다", "넉넉하다"), ("작다", "애매하다")),
            Aspect("재질", ("부드럽다", "톡톡하다"), ("거칠다", "까칠하다")),
            _DELIVERY,
            _PARCEL,
            _PRICE,
        ),
        facts=(
            "다른 색도 있다", "더 큰 사이즈도 있다", "언제 다시 들어오다", "세탁기에 돌릴 수 있다", "선물 포장이 되다",
            "오늘 주문하면 내일 오다", "매장에서 입어 볼 수 있다",
        ),
        services=(*_PARCEL_SERVICES, "한 치수 큰 것으로 바꿔 주다"),
        ideas=("다른 색도 만들다", "주머니를 달다", "치수 표를 자세히 적다", "입은 사진을 더 올리다", "상자를 줄이다"),
    ),
    Domain(
        things=("이어폰", "청소기", "선풍기", "키보드", "모니터", "스피커", "가습기", "면도기", "헤드폰", "프린터"),
        particle="을",
        met="주문하다",
        aspects=(
            Aspect("소리", ("조용하다", "깨끗하다"), ("시끄럽다", "거슬리다")),
            Aspect("배터리", ("오래가다", "넉넉하다"), ("금방 닳다", "부족하다")),
            Aspect("사용법", ("쉽다", "간단하다"), ("어렵다", "복잡하다")),
            Aspect("무게", ("가볍다", "적당하다"), ("무겁다", "부담스럽다")),
            Aspect("디자인", ("예쁘다", "세련되다"), ("촌스럽다", "투박하다")),
            _DELIVERY,
            _PARCEL,
            _PRICE,
        ),
        facts=(
            "설명서가 한글로 되어 있다", "보증 기간이 있다", "부품을 따로 팔다", "충전기가 들어 있다",
            "컴퓨터에도 연결할 수 있다", "어디에서 수리하다", "물로 씻을 수 있다",
        ),
        services=(*_PARCEL_SERVICES, "수리해 주다", "설명서를 보내 주다"),
        ideas=("버튼을 크게 하다", "전선을 길게 하다", "설명서를 쉽게 쓰다", "거치대를 함께 주다", "불빛을 줄이다"),
    ),
    Domain(
        things=("호텔", "펜션", "게스트하우스", "민박집", "한옥", "리조트", "캠핑장", "여관", "수련원", "콘도"),
        particle="에서",
        met="묵다",
        aspects=(
            Aspect("방", ("깨끗하다", "아늑하다", "널찍하다"), ("지저분하다", "춥다", "눅눅하다")),
            Aspect("침대", ("푹신하다", "편하다"), ("딱딱하다", "삐걱거리다")),
            Aspect("아침 식사", ("푸짐하다", "맛있다"), ("부실하다", "차갑다")),
            Aspect("화장실", ("깨끗하다", "넓다"), ("지저분하다", "냄새나다")),
            Aspect("역", ("가깝다",), ("멀다",)),
            _STAFF,
            _PRICE,
        ),
        facts=(
            "몇 시부터 들어갈 수 있다", "주차할 수 있다", "강아지도 데려갈 수 있다", "아침 식사가 나오다",
            "짐을 맡길 수 있다", "바다가 보이다", "침대를 더 넣을 수 있다",
        ),
        services=(
            "방을 바꿔 주다", "예약 날짜를 옮겨 주다", "예약을 취소해 주다", "환불해 주다", "영수증을 보내 주다",
            "두고 온 충전기를 보내 주다",
        ),
        ideas=("방마다 주전자를 놓다", "약도를 문자로 보내다", "퇴실 시간을 늦추다", "자전거를 빌려주다", "방음을 고치다"),
    ),
)  # fmt: skip
