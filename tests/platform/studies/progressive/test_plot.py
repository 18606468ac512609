from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.image import imread

from dure.reporting import plots
from dure.studies.progressive.plot import plot_progressive

from .progressive_studies import FORECAST, candidate, one_candidate, several_candidates, stage, summary


def shades(path: Path, color: str) -> int:
    """Return how many points of a picture have a colour, nearly."""
    wanted = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    return int((abs(imread(path)[:, :, :3] - wanted).max(axis=2) < 0.02).sum())


def test_the_winner_the_forecast_and_who_failed_are_drawn_in_their_colours(tmp_path):
    plot_progressive(tmp_path / "one.png", one_candidate())
    plot_progressive(tmp_path / "several.png", several_candidates())

    one = {
        color: shades(tmp_path / "one.png", color) for color in (plots.BLUE, plots.PURPLE, plots.VERMILION)
    }
    several = {color: shades(tmp_path / "several.png", color) for color in one}
    assert one[plots.BLUE] > 1000
    assert one[plots.PURPLE] > 100
    assert one[plots.VERMILION] == 0
    assert several[plots.BLUE] > 1000
    assert several[plots.PURPLE] == 0
    assert several[plots.VERMILION] > 50
    assert imread(tmp_path / "one.png").shape[:2] == (930, 1080)


@pytest.mark.parametrize(
    "data",
    [
        summary(state="running"),
        summary(state="running", stages=[stage(1, 0.1, 0.6)]),
        summary(candidates=[candidate(1e-4, "failed", []), candidate(1e-3, "failed", [])]),
        summary(
            candidates=[
                candidate(1e-4, "running", [stage(1, 0.1, 0.6), stage(2, 0.2, None)]),
                candidate(1e-3, "diverged", [stage(1, 0.1, float("nan"))]),
            ]
        ),
        summary(stages=[stage(place + 1, (place + 1) / 20, 0.5 + place / 50) for place in range(20)]),
        summary(
            metric="eval_loss",
            direction="min",
            baseline=None,
            stages=[stage(place + 1, 3.0 ** (place - 6), 2.0 - place / 5) for place in range(7)],
        ),
        summary(
            candidates=[candidate(rate / 1000, "stopped", [stage(1, 0.1, 0.6)]) for rate in range(1, 30)]
        ),
        summary(stages=[stage(1, 0.1, 0.6, forecast=FORECAST)]),
        summary(stages=[stage(1, 0.1, 0.6, num_rows=1), stage(2, 0.15, 0.7, num_rows=1)]),
    ],
    ids=["empty", "running", "failed", "nan", "twenty", "far_apart", "many", "forecast", "few_rows"],
)
@pytest.mark.filterwarnings("error")
def test_every_state_of_a_study_has_a_picture(data, tmp_path):
    plot_progressive(tmp_path / "picture.png", data)

    assert imread(tmp_path / "picture.png").shape[:2] == (930, 1080)


def test_a_drawing_that_fails_leaves_the_picture_that_was_there(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"before")

    with pytest.raises(KeyError), plots.picture(path, title="t", width=3, height=2):
        raise KeyError

    assert path.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]


def test_labels_are_korean_only_where_korean_letters_can_be_drawn():
    spoken = plots.spoken({"loss": ("손실", "loss")}, Path("picture.png"))
    assert spoken == {"loss": "loss" if plots.hangul_font() is None else "손실"}
