from __future__ import annotations

import io
import math

import pytest
from matplotlib.image import imread
from rich.console import Console

from dure.epochs.crossover_table import crossover_table
from dure.epochs.loss_series import Point
from dure.epochs.sweet_spot import analysis_record
from dure.epochs.sweet_spot_plot import plot_sweet_spots
from dure.epochs.sweet_spot_table import sweet_spot_table, sweet_spot_text
from dure.reporting import plots


def shown(renderable, width=200):
    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(renderable)
    return file.getvalue()


def record(**series):
    return analysis_record(series)


def points(losses, gap=0.05):
    return [Point(2 * place + 2, loss - gap, loss) for place, loss in enumerate(losses)]


FLAT = points([1.0, 0.7, *[0.5] * 12])
RISING = points([1.0, 0.5, *[0.5 + 0.1 * place for place in range(12)]])


def test_the_report_names_epochs_votes_and_where_it_was_going():
    text = sweet_spot_text(record(encoder=FLAT, head=RISING, lost=points([0.5, math.nan])))
    encoder, head, lost = (line.split() for line in text.splitlines() if line.startswith(("enc", "hea", "los"))
                           and ("%" in line or "diverged" in line))  # fmt: skip
    assert encoder[1:5] == ["14", "50", "%", "0.5000"]
    assert head[1] == "4"
    assert lost[-1] == "diverged"
    assert "head: rising at the end" in text
    assert "  fitting    2, 4, 6, 8" in text
    assert "standard deviation of 5 epochs below 0.01" in text


def test_too_few_epochs_are_a_verdict_of_their_own():
    two = record(encoder=points([0.6, 0.5]), head=points([0.5, 0.6]))
    assert {row["verdict"] for row in two["modules"].values()} == {"too_few_epochs"}
    text = sweet_spot_text(two)
    assert "50 %" not in text
    assert "unknown" not in text
    assert (
        "encoder, head: too few epochs to say anything. A sweet spot needs 5 validated epochs, a trend 8"
        in text
    )


def test_a_narrow_terminal_keeps_the_epoch_and_the_confidence():
    narrow = shown(sweet_spot_table(record(encoder=FLAT)), width=60)
    assert "sweet spot" in narrow
    assert "confidence" in narrow
    assert "more columns in a wider window" in narrow


def test_every_module_has_a_panel_in_the_picture(tmp_path):
    many = {f"module_{place}": FLAT if place % 2 else RISING for place in range(4)}
    plot_sweet_spots(tmp_path / "many.png", record(**many))
    plot_sweet_spots(tmp_path / "one.png", record(encoder=FLAT))
    blue = [int(plots.BLUE[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    counts = {
        name: int((abs(imread(tmp_path / name)[:, :, :3] - blue).max(axis=2) < 0.02).sum())
        for name in ("many.png", "one.png")
    }
    assert counts["one.png"] > 1000
    assert counts["many.png"] > 2 * counts["one.png"]


@pytest.mark.parametrize("losses", [[], [0.5], [math.nan], [0.5, math.nan, 0.4]])
def test_a_series_of_any_length_is_drawn(tmp_path, losses):
    plot_sweet_spots(tmp_path / "plot.png", record(module=points(losses)))
    assert (tmp_path / "plot.png").is_file()


def outcome(**changes):
    def row(name, kind, selection, held_out, **modules):
        return {"name": name, "kind": kind, "selection": selection, "held_out": held_out, "modules": modules}

    def margin(value, low, high):
        return {
            "value": value,
            "low": low,
            "high": high,
            "level": 0.95,
            "num_rows": 1200,
            "is_certain": low > 0,
        }

    one = {"6": 1.0}
    return {
        "kept": "search_greedy",
        "winner": "search_greedy",
        "verdict": "crossover 'search_greedy' is kept: better than every baseline on held-out rows, certainly",
        "selection_better": "min",
        "rows_better": "max",
        "num_evaluations": 73,
        "margins": {"last": margin(0.05, 0.01, 0.09), "best": None},
        "candidates": [
            row("last", "baseline", 0.7, 0.8, encoder=one, head=one),
            row("best", "baseline", None, None, encoder=one, head=one),
            row("uniform_soup", "baseline", 0.65, None, encoder={str(n): 0.1 for n in range(10)},
                head={str(n): 0.1 for n in range(10)}),
            row("search_greedy", "crossover", 0.5, 0.85, encoder=one, head={"2": 0.5, "4": 0.5}),
        ],
        **changes,
    }  # fmt: skip


def test_the_table_shows_every_candidate_its_margin_and_what_was_kept():
    lines = shown(crossover_table(outcome(selection="dev", held_out="test"))).splitlines()
    rows = {line.removeprefix("* ").split()[0]: line for line in lines if line.strip()}
    assert "+0.05  +0.01 to +0.09  6" in rows["last"]
    assert "–" in rows["best"]
    assert "10 epochs" in rows["uniform_soup"]
    assert "* search_greedy" in rows["search_greedy"]
    assert "encoder 6, head 2+4" in rows["search_greedy"]
    assert "selection ↓" in rows["candidate"]
    assert "held-out ↑" in rows["candidate"]
    assert "1,200 held-out rows (95 % interval, paired bootstrap)" in rows["margin:"]
    assert rows["held_out:"] == "held_out: test"
