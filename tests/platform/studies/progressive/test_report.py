from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from dure.reporting.columns import plain_text
from dure.studies.progressive.report import progressive_table, verdict_lines

from .progressive_studies import FORECAST, candidate, one_candidate, several_candidates, stage, summary


def text_of(data: Any) -> str:
    return plain_text(progressive_table(data))


def printed(data: Any, width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(progressive_table(data))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def test_the_text_tells_every_stage_the_forecast_beside_the_truth_and_where_all_lies():
    assert text_of(one_candidate()).splitlines() == [
        "transfer_bert · 4 stages in 5:12",
        "",
        "stage   data   rows  accuracy %   gain  eval loss   batch  time  peak memory",
        "────────────────────────────────────────────────────────────────────────────",
        "    1   10 %    260       61.00      –     0.6400  2 × 16  1:02     1.28 GiB",
        "    2   20 %    520       70.00  +9.00     0.5500   4 × 8  2:04     1.78 GiB",
        "    3   50 %  1,300       75.49  +5.49     0.4951   6 × 5  3:06     2.28 GiB",
        "    4  100 %  2,600       77.91  +2.42     0.4709   8 × 4  4:08     2.78 GiB",
        "",
        "forecast made at 50 % for 2,600 rows: accuracy 78.52 % (90 % interval 74.01 to 81.49); "
        "measured: accuracy 77.91 %, within it",
        "trivial baseline: accuracy 50.90 %",
        "gain: over the stage before, in percentage points; batch: rows per step × accumulated steps",
        "samples trained: 9,360",
        "best checkpoint: outputs/p/stage_4_100pct/checkpoints/best_model.pt (stage 4)",
        "77.91 of stage 4 is flattered, since it was chosen as the best of 4; no test rows say by how much",
        "final model: outputs/p/final_model",
        "results: outputs/p",
    ]


def test_with_several_candidates_it_tells_who_ended_where_and_why():
    lines = text_of(several_candidates()).splitlines()

    start = lines.index("candidates")
    assert lines[0] == "transfer_bert · 2 stages, 4 candidates in 5:12"
    assert "winner: rate_0.0005" in lines[:start]
    assert lines[start + 2 : start + 8] == [
        "candidate    learning_rate  state      ended at  accuracy %  samples  time  why",
        "─" * 91,
        "rate_0.0005         0.0005  completed     100 %     * 78.00    5,720  3:06",
        "rate_0.0001         0.0001  stopped        10 %       60.00      520  1:02  beaten at 10 %",
        "rate_1e-05           1e-05  stopped        10 %       55.00      520  1:02  beaten at 10 %",
        "rate_0.01             0.01  diverged          –           –        –     –  the loss is NaN",
    ]
    assert "rate_0.01 diverged: Diverged: the loss is NaN" in lines


def test_a_narrow_terminal_gets_fewer_columns_but_whole_numbers():
    text = printed(several_candidates(), 50)

    assert "* 78.00" in text
    assert "peak memory" not in text
    assert "more columns in a wider window and in" in text
    assert max(map(len, text.splitlines())) <= 50


def test_a_study_that_has_just_begun_has_a_table():
    first = text_of(summary(state="interrupted")).splitlines()[0]
    assert first == "transfer_bert · no stage yet in 5:12 · interrupted"


def test_a_study_that_runs_shows_the_stages_it_has():
    stages = [
        stage(1, 0.1, 0.61),
        stage(2, 0.2, 0.7),
        stage(3, 0.5, None, state="running", forecast=FORECAST),
    ]
    lines = text_of(summary(state="interrupted", stages=stages)).splitlines()

    assert lines[0].endswith("3 stages in 5:12 · interrupted")
    assert any(line.split()[:6] == ["3", "50", "%", "1,300", "–", "–"] for line in lines)
    assert any(line.endswith("(90 % interval 74.01 to 81.49)") for line in lines), "no truth is known yet"
    assert any("best_model.pt (stage 2)" in line for line in lines)


def test_a_loss_ranks_upwards_and_stands_in_one_column():
    stages = [stage(1, 0.1, 0.9), stage(2, 0.2, 0.4)]
    worse = [stage(1, 0.1, 1.1)]
    data = summary(
        metric="eval_loss", direction="min", baseline=1.0986, winner="rate_0.1", stages=stages, stopped="gain",
        candidates=[candidate(0.2, "stopped", worse), candidate(0.1, "completed", stages)],
    )  # fmt: skip
    text = text_of(data)

    assert text.count("eval loss") == 3, "two tables and the baseline"
    assert "+0.5000" in text, "a loss that falls gains, as --min-gain counts it"
    assert text.index("rate_0.1  ") < text.index("rate_0.2  ")
    assert "best_model.pt (stage 2)" in text
    assert "more data no longer pays" in text


def test_the_best_stage_has_its_test_score_beside_the_one_that_chose_it():
    tested = one_candidate(metrics={"test_accuracy": 0.7})
    assert "on the test rows, which chose nothing, it has 70.00" in text_of(tested)


def test_candidates_that_were_beaten_within_the_noise_are_named() -> None:
    rows = {"num_dev_rows": 300}
    won = [stage(1, 0.1, 0.65, **rows), stage(2, 1.0, 0.78, **rows)]
    study = summary(
        definitions={"eval_accuracy": {"direction": "max", "unit": "share"}},
        winner="rate_0.0005",
        stages=won,
        candidates=[
            candidate(5e-4, "completed", won),
            candidate(1e-4, "stopped", [stage(1, 0.1, 0.6, **rows)], "beaten at 10 %"),  # 15 of 300 rows
            candidate(1e-5, "stopped", [stage(1, 0.1, 0.3, **rows)], "beaten at 10 %"),
        ],
    )
    (line,) = (line for line in verdict_lines(study) if "noise" in line)
    assert line == (
        "Beaten at 10 % within the noise of 300 validation rows (binomial, 95 %), so that other rows might have kept "
        "them: rate_0.0001."
    )
