"""The people of the sample corpus: how they greet, chat and part, at the speech level between them."""

from __future__ import annotations

from trainables.samples.korean import Register
from trainables.samples.scenario import Relation

CASUAL, POLITE, FORMAL = Register

_EVERYDAY = (
    ("X 요즘 날씨가 정말 [춥다|춥네요].", "Y [그러게|그러게요]. {decoy}에는 눈이 [온대|온대요]."),
    ("X 참, 어제 축구 [봤어|보셨어요]?", "Y [아니|아니요], 일찍 [잤어|잤어요]."),
    ("X 점심은 [먹었어|드셨어요]?", "Y [응|네], 김밥을 [먹었어|먹었어요]."),
    ("X 새로 생긴 빵집에 [가 봤어|가 보셨어요]?", "Y [응, 정말 맛있어|네, 정말 맛있어요]."),
    (
        "X 어제 버스가 너무 [늦게 왔어|늦게 왔어요].",
        "Y [맞아, 나도 오래 기다렸어|맞아요, 저도 오래 기다렸어요].",
    ),
)
_TOGETHER = (
    *_EVERYDAY,
    ("X {friend:이} {decoy}에 [결혼한대|결혼한대요].", "Y [정말|정말요]? [잘됐다|잘됐네요]."),
    ("X 커피 한잔 [할래|하실래요]?", "Y [아니, 괜찮아|아니요, 괜찮아요]."),
    ("C [나 먼저 갈게|저 먼저 갈게요].", "X [응, 잘 가|네, 들어가세요]."),
)

_PRIVATE_PAUSES = (
    ("B [잠깐만, 전화 왔어|잠깐만요, 전화가 왔어요].", "A [응, 천천히 해|네, 천천히 하세요]."),
    ("B [생각 좀 해 볼게|생각 좀 해 볼게요].", "A [응, 천천히 해|네, 천천히 하세요]."),
    (
        "B [잠깐만, {decoy}에 만날 친구 전화야|잠깐만요, {decoy}에 만날 친구 전화예요].",
        "A [응, 천천히 해|네, 천천히 하세요].",
    ),
)
_OFFICIAL_PAUSES = (
    ("B [잠깐만|잠깐만요|잠시만 기다려 주십시오].", "A 네, [알겠어|알겠어요|알겠습니다]."),
    ("B [한번 볼게|한번 볼게요|잠시 확인해 보겠습니다].", "A 네, 천천히 [해|하세요|하십시오]."),
)

FRIENDS = Relation(
    asker=CASUAL,
    answerer=CASUAL,
    bystander=CASUAL,
    asker_opens=(("A 안녕, 오랜만이야.", "B 응, 잘 지냈어?"), ("A 지금 바빠?", "B 아니, 괜찮아.")),
    answerer_opens=(("B 안녕, 오랜만이야.", "A 응, 잘 지냈어?"), ("B 어, 일찍 왔네.", "A 응, 방금 왔어.")),
    prompts=("무슨 일이야?", "나한테 할 말 있어?"),
    chatter=_TOGETHER,
    pauses=_PRIVATE_PAUSES,
    closings=(("X 그럼 또 보자.", "Y 응, 잘 가."), ("X 나중에 연락할게.", "Y 그래, 알겠어.")),
    calls=(("X {name:아}, 안녕.", "Y 응, 안녕."), ("X {name:아}, 잘 지냈어?", "Y 응, 잘 지냈어.")),
)

COLLEAGUES = Relation(
    asker=POLITE,
    answerer=POLITE,
    bystander=POLITE,
    asker_opens=(("A 안녕하세요.", "B 네, 안녕하세요."), ("A 지금 바쁘세요?", "B 아니요, 괜찮아요.")),
    answerer_opens=(("B 안녕하세요.", "A 네, 안녕하세요."), ("B 오늘 일찍 오셨네요.", "A 네, 방금 왔어요.")),
    prompts=("무슨 일이세요?", "저한테 하실 말씀 있으세요?"),
    chatter=_TOGETHER,
    pauses=_PRIVATE_PAUSES,
    closings=(
        ("X 그럼 또 봬요.", "Y 네, 들어가세요."),
        ("X 나중에 연락드릴게요.", "Y 네, 알겠어요."),
    ),
    calls=(
        ("X {name} 씨, 안녕하세요.", "Y 네, 안녕하세요."),
        ("X {name} 씨, 잘 지내셨어요?", "Y 네, 잘 지냈어요."),
    ),
)

NEIGHBOURS = Relation(
    asker=POLITE,
    answerer=POLITE,
    bystander=CASUAL,
    asker_opens=(
        ("A 안녕하세요. 옆집 사람이에요.", "B 네, 안녕하세요."),
        ("A 지금 바쁘세요?", "B 아니요, 괜찮아요."),
    ),
    answerer_opens=(
        ("B 누구세요?", "A 안녕하세요. 옆집 사람이에요."),
        ("B 안녕하세요.", "A 네, 안녕하세요."),
    ),
    prompts=("무슨 일이세요?", "저한테 하실 말씀 있으세요?"),
    chatter=(
        _EVERYDAY[0],
        _EVERYDAY[3],
        ("X 여기 오래 사셨어요?", "Y 네, 꽤 오래 살았어요."),
        ("X 요즘 승강기가 자주 고장 나네요.", "Y 그러게요. {decoy}에 고친대요."),
    ),
    pauses=_PRIVATE_PAUSES,
    closings=(("X 그럼 또 봬요.", "Y 네, 들어가세요."),),
)

STRANGERS = Relation(
    asker=POLITE,
    answerer=POLITE,
    bystander=CASUAL,
    asker_opens=(("A 안녕하세요. 글을 보고 왔어요.", "B 네, 안녕하세요."),),
    answerer_opens=(("B 안녕하세요.", "A 네, 글을 보고 왔어요."),),
    prompts=("뭐가 궁금하세요?", "천천히 보세요."),
    chatter=(_EVERYDAY[0], _EVERYDAY[-1]),
    pauses=_PRIVATE_PAUSES,
    closings=(("X 그럼 들어가세요.", "Y 네, 안녕히 가세요."),),
)

COUNTER = Relation(
    asker=POLITE,
    answerer=FORMAL,
    bystander=FORMAL,
    asker_opens=(("A 저기요.", "B 네, 손님."), ("A 안녕하세요.", "B 네, 어서 오십시오.")),
    answerer_opens=(("B 어서 오십시오.", "A 안녕하세요."),),
    prompts=("무엇을 도와드릴까요?", "무슨 일로 오셨습니까?"),
    chatter=(
        ("A 오늘은 손님이 많네요.", "B 네, {decoy}까지 할인 행사를 합니다."),
        ("A 주차장은 어디예요?", "B 지하 2층입니다."),
        ("B 물 한 잔 드시겠습니까?", "A 아니요, 괜찮아요."),
        ("B 오시는 길은 춥지 않으셨습니까?", "A 네, 괜찮았어요."),
    ),
    pauses=_OFFICIAL_PAUSES,
    closings=(("A 수고하세요.", "B 네, 안녕히 가십시오."),),
)

TELEPHONE = Relation(
    asker=POLITE,
    answerer=FORMAL,
    bystander=None,
    asker_opens=(("A 여보세요.", "B 네, 말씀하십시오."), ("A 안녕하세요.", "B 네, 고객님.")),
    answerer_opens=(("B 네, 전화 받았습니다.", "A 안녕하세요."),),
    prompts=("무엇을 도와드릴까요?", "무슨 일로 전화하셨습니까?"),
    chatter=(
        ("A 오늘은 몇 시까지 하세요?", "B 여덟 시까지 합니다."),
        ("A {decoy}에도 전화를 받으세요?", "B 네, {decoy}에도 받습니다."),
        ("A 전화가 계속 통화 중이었어요.", "B 죄송합니다. 오늘은 전화가 많습니다."),
        ("B 전에도 전화하셨습니까?", "A 아니요, 처음이에요."),
    ),
    pauses=_OFFICIAL_PAUSES,
    closings=(("A 수고하세요.", "B 네, 좋은 하루 보내십시오."),),
)

CLINIC = Relation(
    asker=POLITE,
    answerer=POLITE,
    bystander=POLITE,
    asker_opens=(("A 선생님, 안녕하세요.", "B 네, 앉으세요."),),
    answerer_opens=(("B 어서 오세요. 앉으세요.", "A 네, 선생님."),),
    prompts=("어디가 불편하세요?", "어떻게 오셨어요?"),
    chatter=(
        ("A 오늘은 사람이 많네요.", "B 네, {decoy}까지 계속 그럴 거예요."),
        ("B 물은 자주 드세요?", "A 네, 자주 마셔요."),
        ("B 잠은 잘 주무세요?", "A 아니요, 잘 못 자요."),
        ("A {decoy}에도 문을 여세요?", "B 네, 오전에만 열어요."),
    ),
    pauses=_OFFICIAL_PAUSES,
    closings=(("A 안녕히 계세요.", "B 네, 조심히 가세요."),),
)

SCHOOL = Relation(
    asker=POLITE,
    answerer=CASUAL,
    bystander=POLITE,
    asker_opens=(("A 선생님, 안녕하세요.", "B 그래, 어서 와라."),),
    answerer_opens=(("B 수업은 재미있었니?", "A 네, 재미있었어요."),),
    prompts=("무슨 일이니?", "나한테 할 말 있니?"),
    chatter=(
        ("B 요즘 공부는 잘되니?", "A 네, 재미있어요."),
        ("B {decoy} 시험은 준비하고 있니?", "A 네, 조금씩 하고 있어요."),
        ("A 선생님, 창문을 닫을까요?", "B 그래, 고맙다."),
        ("B 점심은 먹었니?", "A 네, 김밥을 먹었어요."),
    ),
    pauses=_OFFICIAL_PAUSES,
    closings=(("A 안녕히 계세요.", "B 그래, 조심히 가라."),),
)

OFFICE = Relation(
    asker=FORMAL,
    answerer=POLITE,
    bystander=FORMAL,
    asker_opens=(
        ("A 부장님, 안녕하십니까?", "B 네, 들어오세요."),
        ("A 지금 바쁘십니까?", "B 아니요, 괜찮아요."),
    ),
    answerer_opens=(("B 오늘 일찍 오셨네요.", "A 네, 방금 왔습니다."),),
    prompts=("무슨 일이에요?", "저한테 하실 말씀 있으세요?"),
    chatter=(
        ("B 어제 회식은 잘 끝났어요?", "A 네, 일찍 끝났습니다."),
        ("B {decoy} 발표 자료는 다 됐어요?", "A 네, 거의 다 됐습니다."),
        ("A 부장님, 커피 드시겠습니까?", "B 아니요, 괜찮아요."),
        ("B 점심은 드셨어요?", "A 네, 김밥을 먹었습니다."),
    ),
    pauses=_OFFICIAL_PAUSES,
    closings=(("A 그럼 나가 보겠습니다.", "B 네, 수고하세요."),),
)

INTERVIEW = Relation(
    asker=FORMAL,
    answerer=FORMAL,
    bystander=None,
    asker_opens=(("A 안녕하십니까? 앉으십시오.", "B 네, 감사합니다."),),
    answerer_opens=(("B 안녕하십니까?", "A 네, 앉으십시오."),),
    prompts=("더 궁금하신 것이 있으십니까?", "저한테 하실 말씀이 있으십니까?"),
    chatter=(
        ("A 오시는 길은 힘들지 않으셨습니까?", "B 네, 괜찮았습니다."),
        ("A 우리 회사를 어떻게 아셨습니까?", "B 친구한테 들었습니다."),
        ("B 점심시간은 언제입니까?", "A 열두 시부터입니다."),
        ("B 교육은 언제 합니까?", "A {decoy}에 합니다."),
    ),
    pauses=_OFFICIAL_PAUSES,
    closings=(("A 수고하셨습니다.", "B 네, 안녕히 계십시오."),),
)
