"""``dure validate`` as it is called."""

from __future__ import annotations

from .conftest import call


def test_a_sound_machine_and_experiment_exit_0_with_a_table_and_leave_nothing(tmp_path):
    outcome = call("validate", "red_heart_tiny", "--profile", "cpu")
    assert outcome.code == 0, outcome.out
    assert "imports" in outcome.out
    assert "393,174 parameters" in outcome.out
    assert "failed" not in outcome.out
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_exits_2_and_stands_beneath_the_table_with_what_to_do():
    outcome = call(
        "validate", "transfer_bert", "data.train=none.csv", "data.dev=null", "--rehearse", "--profile", "cpu"
    )
    assert outcome.code == 2
    assert "data, sources\n  data.train=none.csv: there is no such file" in outcome.out


def test_json_is_one_object_with_every_check():
    value = call("validate", "--checkpoint", "nothing", "--profile", "cpu", "--json").value
    assert value["state"] == "failed"
    (wrong,) = (check for check in value["checks"] if check["state"] == "failed")
    assert (wrong["area"], wrong["name"]) == ("checkpoints", "nothing")
    assert set(wrong) == {"area", "name", "state", "found", "remedy"}
