import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from dure.data.overlap import overlap
from dure.data.tables import Role, table_from_rows

ROLES = (Role("text", "dialogue", is_input=True), Role("target", "summary"))
texts = st.lists(st.text("가나다라 \n", min_size=1, max_size=4).filter(str.strip), min_size=1, max_size=12)


def table_of(rows, folder):
    return table_from_rows([{"text": text, "target": "요약"} for text in rows], "sample", ROLES, folder)


@settings(max_examples=60, deadline=None)
@given(train=texts, dev=texts)
def test_overlap_is_exactly_the_training_rows_whose_words_stand_in_dev(tmp_path_factory, train, dev):
    folder = tmp_path_factory.getbasetemp() / "overlap"
    held_out = {tuple(text.split()) for text in dev}
    found = overlap(table_of(train, folder), table_of(dev, folder), ["text"])
    assert found.tolist() == [place for place, text in enumerate(train) if tuple(text.split()) in held_out]


def test_composed_and_decomposed_hangul_are_the_same_text(tmp_path):
    text = "#Person1#: 점심은 김치찌개로 하자"
    decomposed = unicodedata.normalize("NFD", text).replace(" ", "\r\n ")
    assert decomposed != text
    assert overlap(table_of([text], tmp_path), table_of([decomposed], tmp_path), ["text"]).tolist() == [0]


def test_all_roles_must_agree(tmp_path):
    train, dev = (
        table_of(["가"], tmp_path),
        table_from_rows([{"text": "가", "target": "나"}], "dev", ROLES, tmp_path),
    )
    assert overlap(train, dev, ["text"]).tolist() == [0]
    assert overlap(train, dev, ["text", "target"]).tolist() == []
