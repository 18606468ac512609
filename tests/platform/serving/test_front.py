"""What is served is what `dure predict` says, and whatever is asked wrongly is answered in words. No Ray is started."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import shutil
import socket
import time
from types import SimpleNamespace

import jsonschema
import pytest
from ray.exceptions import ActorDiedError
from starlette.testclient import TestClient

from dure import api
from dure.config import load_profile
from dure.errors import UserError
from dure.family import load_family
from dure.family.run_weights import weights_at
from dure.files import parse_json
from dure.serving.asked import MOST_TEXTS, Inputs
from dure.serving.batcher import Batcher
from dure.serving.deploying import require_loaded
from dure.serving.figures import Figures
from dure.serving.openapi import STATUSES, Served, Serving
from dure.serving.predictor import Answer, Predictor
from dure.serving.refusals import RefusedError
from dure.serving.server import bound
from dure.serving.web import Front
from dure.training.run import RunRequest, run

TEXTS = [
    "오늘은 기분이 정말 좋다",
    "네",
    "#Person1#: 내일 만나요. #Person2#: 좋아요, 세 시에 봐요.",
    "좋아요",
    "가 나 다 라 마 바 사 아 자 차 카 타 파 하 " * 9,
]
TOKEN = "0123456789abcdef-of-tests"
JSON = {"Content-Type": "application/json"}


def quiet(*_) -> None:
    """Say nothing."""


def trained(experiment, path):
    """Train a miniature and return its folder."""
    training = experiment.training.model_copy(update={"max_steps": 2, "learning_rate": 3e-3})
    data = experiment.data.model_copy(update={"max_train_rows": 12, "max_dev_rows": 4})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DURE_CACHE", str(path.parent / "cache"))
        run(
            RunRequest(
                experiment.model_copy(update={"training": training, "data": data}), load_profile("cpu"), path
            )
        )
    return path


@pytest.fixture(scope="module")
def bert(tiny, tmp_path_factory):
    return trained(
        tiny("bert", "full"),
        tmp_path_factory.mktemp("bert") / "run",
    )


@pytest.fixture(scope="module")
def bart(tiny, tmp_path_factory):
    return trained(tiny("bart", "lora"), tmp_path_factory.mktemp("bart") / "run")


@pytest.fixture(scope="module")
def chat(tiny, tmp_path_factory):
    return trained(tiny("llama", "full", task={}), tmp_path_factory.mktemp("chat") / "run")


def client(*runs, send=None, most_texts=8, **asked):
    """Return a client of a front before models in this process, as a replica has them."""
    figures = Figures()
    if send is None:
        training = weights_at(runs[0]).family(quiet).experiment.training
        size = training.eval_batch_size or training.batch_size
        predictor = Predictor(runs, load_profile("cpu"), size, quiet)

        async def send(requests):
            return await asyncio.to_thread(predictor.predict, requests)

    batcher = Batcher(send, most_texts=most_texts, most_waiting=4, figures=figures)
    inputs = Inputs(weights_at(runs[0]).family(quiet))
    front = Front(
        Served("tiny", "trainables.transfer", "final_model, the best checkpoint", "http://127.0.0.1:1"),
        inputs,
        batcher,
        figures,
        Serving(**{"max_bytes": 20_000, "time_limit": 20.0, **asked}),
        lambda: 1,
    )
    app = front.app()

    class Started(TestClient):
        async def _begin(self):
            batcher.start(1)

        def __enter__(self):
            super().__enter__()
            self.portal.call(self._begin)
            return self

        def __exit__(self, *args):
            self.portal.call(batcher.stop)
            super().__exit__(*args)

        def predict(self, value, **more):
            body = value if isinstance(value, bytes) else json.dumps(value)
            return self.post("/predict", content=body, headers={**JSON, **more})

    return Started(app, base_url="http://127.0.0.1:1", raise_server_exceptions=False)


@pytest.mark.parametrize("kind", ["bert", "bart", "chat"])
def test_what_is_served_is_what_predict_says(kind, request):
    path = request.getfixturevalue(kind)
    expected = api.predict(path, TEXTS, profile="cpu")
    with client(path) as server:
        answer = server.predict({"texts": TEXTS})
        assert answer.status_code == 200, answer.text
        assert answer.json()["predictions"] == expected
        assert answer.json()["truncated"] == [4]
        alone = [server.predict({"texts": [text]}).json()["predictions"][0] for text in TEXTS]
    for ours, theirs in zip(alone, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=2e-6)  # another batch is padded otherwise


def test_folds_predict_together_and_a_unified_training_by_what_won(bert, tmp_path):
    for fold in (1, 2):
        shutil.copytree(bert, tmp_path / "study" / f"fold_{fold}")
    folds = sorted((tmp_path / "study").glob("fold_*"))
    with client(*folds) as server:
        answer = server.predict({"texts": TEXTS}).json()["predictions"]
    assert answer == api.predict(tmp_path / "study", TEXTS, profile="cpu")


def test_a_row_may_name_its_columns(bert):
    with client(bert) as server:
        assert (
            server.predict({"texts": [{"text": TEXTS[0]}]}).json()
            == server.predict({"texts": TEXTS[:1]}).json()
        )


def test_a_conversation_is_asked_as_the_list_of_turns_that_it_is(tiny):
    inputs = Inputs(load_family(tiny("llama", "full", task={"rows": "messages"})))
    turns = [{"role": "user", "content": "안녕하세요?"}]
    (row,) = inputs.rows(json.dumps({"texts": [{"text": turns}]}).encode())
    assert json.loads(row["text"]) == [["user", "안녕하세요?"]]
    assert inputs.rows(json.dumps({"texts": [json.dumps(turns)]}).encode()) == [row]
    with pytest.raises(RefusedError, match="turn 1 the unknown role 'nobody'") as refused:
        inputs.rows(json.dumps({"texts": [{"text": [{"role": "nobody", "content": "x"}]}]}).encode())
    assert refused.value.status == 422


def test_a_model_of_pairs_takes_an_object_for_each(tiny, tmp_path):
    path = trained(tiny("bert", "full").with_({"data.columns.text_pair": "text_pair"}), tmp_path / "run")
    pair = {"text": "비가 온다", "text_pair": "날씨가 흐리다"}
    with client(path) as server:
        assert server.predict({"texts": [pair]}).json()["predictions"] == api.predict(
            path, [pair], profile="cpu"
        )
        for wrong, words in (
            ("비가 온다", "2 texts: text, text_pair"),
            ({"text": "비"}, "has no 'text_pair'"),
        ):
            refused = server.predict({"texts": [wrong]})
            assert (refused.status_code, words in refused.text) == (422, True), refused.text
        assert '"text_pair": "…"' in server.get("/").text


WRONG = {
    "no JSON": (b'{"texts": [', 400, "no JSON"),
    "nothing": (b"", 400, "no JSON"),
    "a key twice": (b'{"texts": ["a"], "texts": ["b"]}', 400, "'texts' stands twice"),
    "a column twice": (b'{"texts": [{"text": "a", "text": "b"}]}', 400, "'text' stands twice"),
    "CP949": ('{"texts": ["가"]}'.encode("cp949"), 400, "not UTF-8"),
    "bottomless": (b"[" * 5000, 400, "no JSON"),
    "a list": (["가"], 422, "the body is a list"),
    "a number": (5, 422, "the body is a number"),
    "another key": ({"text": "가"}, 422, "there is no key 'text'"),
    "one key more": ({"texts": ["가"], "beams": 3}, 422, "there is no key 'beams'"),
    "no key": ({}, 422, "it is missing"),
    "no list": ({"texts": "가"}, 422, "it is a text"),
    "an empty list": ({"texts": []}, 422, "it is an empty list"),
    "null": ({"texts": None}, 422, "it is null"),
    "a number for a text": ({"texts": ["가", 3]}, 422, "'text' is a number"),
    "true for a text": ({"texts": [True]}, 422, "'text' is true"),
    "null for a text": ({"texts": [None]}, 422, "'text' is null"),
    "a list for a text": ({"texts": [["가"]]}, 422, "'text' is a list"),
    "an empty text": ({"texts": ["가", ""]}, 422, "is empty"),
    "a blank text": ({"texts": [" \n\t"]}, 422, "is empty"),
    "what cannot be seen": ({"texts": ["\u200b\u2060\ufeff"]}, 422, "nothing but what cannot be seen"),
    "a missing value": ({"texts": ["NaN"]}, 422, "a missing value as text"),
    "half a character": (b'{"texts": ["\\ud83d"]}', 422, "surrogate"),
    "an unknown column": ({"texts": [{"txt": "가"}]}, 422, "no column 'txt'"),
    "a row of nothing": ({"texts": [{}]}, 422, "has no 'text'"),
    "too large": ({"texts": ["가" * 20_000]}, 413, "larger than"),
    "too many": ({"texts": ["a"] * (MOST_TEXTS + 1)}, 413, f"there are {MOST_TEXTS + 1}"),
}
"""What is sent, its status, and words of the answer."""


@pytest.fixture(scope="module")
def server(bert):
    with client(bert) as started:
        yield started


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_answered_in_words(name, server):
    body, status, words = WRONG[name]
    answer = server.predict(body)
    assert (answer.status_code, words in answer.text) == (status, True), answer.text
    error = answer.json()["error"]
    assert {"problem"} < set(error) <= {"problem", "where", "expected", "hint"}
    jsonschema.validate(answer.json(), server.get("/openapi.json").json()["components"]["schemas"]["Error"])
    assert server.predict({"texts": ["가"]}).status_code == 200  # whoever comes next is served


def test_letters_that_the_tokenizer_does_not_know_are_refused_as_predict_refuses_them(bert, tmp_path):
    copy = shutil.copytree(bert, tmp_path / "run")
    file = copy / "experiment.yaml"
    text = file.read_text(encoding="utf-8")
    assert "max_unknown_rate: 1.0" in text
    file.write_text(text.replace("max_unknown_rate: 1.0", "max_unknown_rate: 0.5"), encoding="utf-8")
    runes = ["ᚠᚢᚦᚨᚱᚲ ᚷᚹᚺᚾᛁᛃ"]
    with client(copy) as server:
        refused = server.predict({"texts": runes})
    assert (refused.status_code, "does not know 100.0%" in refused.text) == (422, True), refused.text
    with pytest.raises(UserError, match=r"does not know 100\.0%"):
        api.predict(copy, runes, profile="cpu")


def test_what_is_asked_in_another_way_is_answered_in_words(server):
    for answer, status in (
        (server.post("/predict", content=b"{}", headers={"Content-Type": "text/plain"}), 415),
        (server.post("/predict", content=b"{}"), 415),
        (server.get("/predict"), 405),
        (server.get("/nothing"), 404),
        (server.get("/", headers={"Host": "evil.example"}), 421),
        (server.predict(b"", **{"Content-Length": "999999999"}), 413),
    ):
        assert answer.status_code == status
        assert answer.json()["error"]["problem"]
        assert status in STATUSES


def test_the_document_says_what_may_be_asked(server, bert):
    document = server.get("/openapi.json").json()
    post = document["paths"]["/predict"]["post"]
    schema = post["requestBody"]["content"]["application/json"]["schema"]
    jsonschema.validate({"texts": ["가", {"text": "가"}]}, schema)
    for name in (
        "a list",
        "another key",
        "an empty list",
        "a number for a text",
        "an unknown column",
        "too many",
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(WRONG[name][0], schema)
    answer = server.predict({"texts": ["가"]}).json()
    jsonschema.validate(answer, post["responses"]["200"]["content"]["application/json"]["schema"])


def test_a_token_is_asked_for_and_never_shown(bert):
    with client(bert, token=TOKEN) as server:
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
            refused = server.predict({"texts": ["가"]}, **given)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
            assert server.get("/metrics", headers=given).status_code == 401
        assert server.predict({"texts": ["가"]}, Authorization=f"Bearer {TOKEN}").status_code == 200
        shown = [server.get(path) for path in ("/", "/health", "/openapi.json")]
        figures = server.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert {each.status_code for each in (*shown, figures)} == {200}
        assert not any(TOKEN in each.text for each in (*shown, figures))
    assert 'dure_serve_requests_total{status="401"} 3.0' in figures.text
    assert "dure_serve_batch_texts_count 1.0" in figures.text


def test_the_page_loads_nothing_from_elsewhere_and_escapes_names(bert):
    with client(bert) as server:
        page = server.get("/")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "http" not in page.text.replace("http://127.0.0.1:1", "")
    served = Served("<script>x</script>", "f", "w", "http://127.0.0.1:1")
    front = Front(served, Inputs(weights_at(bert).family(quiet)), None, Figures(), Serving(), int)
    assert "<script>x" not in TestClient(front.app(), base_url="http://localhost").get("/").text


def asked_together(batcher, requests, seconds=5.0):
    """Ask all of these at once, and return what each gets."""

    async def ask():
        batcher.start(1)
        found = await asyncio.gather(
            *(batcher.ask(rows, seconds) for rows in requests), return_exceptions=True
        )
        batcher.stop()
        return found

    return asyncio.run(ask())


def test_what_waits_makes_one_batch_and_one_who_is_alone_waits_for_nobody():
    sizes = []

    async def send(requests):
        sizes.append([len(rows) for rows in requests])
        await asyncio.sleep(0.02)
        return [Answer([{"n": row["text"]} for row in rows], []) for rows in requests]

    def batcher():
        return Batcher(send, most_texts=4, most_waiting=99, figures=Figures())

    requests = [
        [{"text": f"{number}.{place}"} for place in range(size)]
        for number, size in enumerate((1, 2, 1, 9, 3))
    ]
    found = asked_together(batcher(), requests)
    assert [[row["n"] for row in answer.predictions] for answer in found] == [
        [row["text"] for row in rows] for rows in requests
    ]
    assert sizes == [[1, 2, 1], [9], [3]]
    started = time.perf_counter()
    asked_together(batcher(), requests[:1])
    assert time.perf_counter() - started < 0.5


def test_a_request_that_fails_takes_no_other_with_it_and_a_dead_replica_none():
    calls = []

    async def send(requests):
        calls.append(len(requests))
        texts = [rows[0]["text"] for rows in requests]
        if len(calls) == 1 or "deadly" in texts:
            raise ActorDiedError
        if "broken" in texts:
            raise ValueError("of a model")
        return [Answer([{"text": text}], []) for text in texts]

    requests = [[{"text": text}] for text in ("one", "broken", "deadly", "two")]
    logging.getLogger("dure").setLevel(logging.CRITICAL)
    try:
        found = asked_together(Batcher(send, most_texts=8, most_waiting=99, figures=Figures()), requests)
    finally:
        logging.getLogger("dure").setLevel(logging.NOTSET)
    assert [each.status if isinstance(each, RefusedError) else each.predictions[0]["text"] for each in found] == [
        "one", 500, 503, "two",
    ]  # fmt: skip
    assert calls == [4, 1, 1, 1, 1, 1]


def test_who_comes_when_too_many_wait_or_waits_too_long_is_told(bert):
    async def never(requests):
        await asyncio.sleep(60)

    found = asked_together(
        Batcher(never, most_texts=1, most_waiting=2, figures=Figures()), [[{"text": "a"}]] * 4, seconds=0.2
    )
    assert sorted(each.status for each in found) == [503, 503, 504, 504]
    with client(bert, send=never, max_bytes=1000, time_limit=0.2) as server:
        late = server.predict({"texts": ["가"]})
    assert late.status_code == 504
    assert "0.2 seconds" in late.text
    assert parse_json(late.content)["error"]["hint"]


def test_small_answers_are_sent_at_once():
    async def accepted(listening):
        seen = asyncio.get_running_loop().create_future()
        server = await asyncio.start_server(lambda reader, writer: seen.set_result(writer), sock=listening)
        async with server:
            _, client = await asyncio.open_connection(*listening.getsockname())
            writer = await seen
            delay_is_off = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            writer.close()
            client.close()
        return delay_is_off

    with bound(0) as listening:
        assert asyncio.run(accepted(listening))


class Drawn:
    """A handle of replicas, of which every call gets one by chance; those that are named lack their model."""

    def __init__(self, count, *lacking):
        self.count, self.lacking, self.drawn = count, lacking, random.Random(0)
        self.loaded = SimpleNamespace(remote=lambda: SimpleNamespace(result=self.answer))

    def answer(self):
        number = self.drawn.randrange(self.count)
        return str(number), UserError("there is no such folder") if number in self.lacking else None


def test_a_replica_on_a_node_without_the_folder_is_found_before_anything_is_served():
    require_loaded(Drawn(4), 4)
    for lacking in range(4):
        with pytest.raises(UserError, match="no such folder"):
            require_loaded(Drawn(4, lacking), 4)
