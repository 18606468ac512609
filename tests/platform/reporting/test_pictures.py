"""The pictures that every run leaves, and how any picture is written."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from matplotlib import font_manager
from matplotlib.image import imread

from dure.metrics.metric import Metric
from dure.reporting import curves, plots
from dure.reporting.curves import RunCurves, plot_run, plot_runs
from dure.reporting.plots import Drawing

ACCURACY = Metric("eval_accuracy", "max", "share")


def run(name: str = "r", epochs: float = 3, rise: float = 0.1, baseline: float = 0.5) -> RunCurves:
    records = []
    for step in range(1, 31):
        at = {"step": step, "epoch": epochs * step / 30}
        records.append({"kind": "train", **at, "loss": 2 - step / 30, "learning_rate": 1e-4})
        if step % 10 == 0:
            scores = {"eval_accuracy": 0.4 + rise * step / 10, "eval_f1[긍정]": 0.3, "eval_runtime": 1.0}
            records.append(
                {"kind": "eval", **at, "eval_loss": 2 - step / 20, "eval_loss_head": 1.0, **scores}
            )
    return RunCurves(name, records, {"baseline_accuracy": baseline, "baseline_loss": 1.1})


def axes_of(monkeypatch: pytest.MonkeyPatch, draw) -> list:
    """Return the axes of a picture that is drawn, before it is written."""
    found = []
    monkeypatch.setattr(plots, "_write", lambda figure, path: found.extend(figure.axes))
    draw()
    return [axis for axis in found if axis.get_visible()]


def test_every_panel_has_its_own_legend_whole_epochs_and_the_baseline_beside_its_score(tmp_path, monkeypatch):
    axes = axes_of(monkeypatch, lambda: plot_run(tmp_path / "c.png", run(epochs=2.4)))
    assert len(axes) == 4
    loss, losses, scores, rate = axes
    assert [axis.get_legend() is None for axis in axes] == [True, False, False, True]
    for axis in axes:
        shown = [tick for tick in axis.get_xticks() if axis.get_xlim()[0] <= tick <= axis.get_xlim()[1]]
        assert shown == [0, 1, 2, 3]
    assert 50.0 in [line.get_ydata()[0] for line in scores.get_lines()]
    assert 1.1 in [line.get_ydata()[0] for line in losses.get_lines()]
    labels = [text.get_text() for text in losses.get_legend().get_texts()]
    assert len(labels) == len(set(labels)) == 3
    assert len(loss.get_lines()) == len(rate.get_lines()) == 1


def test_many_runs_are_told_apart_up_to_seven_and_the_rest_is_grey(tmp_path, monkeypatch):
    runs = [run(f"run_{place}", rise=place / 100) for place in range(20)]
    axes = axes_of(monkeypatch, lambda: plot_runs(tmp_path / "c.png", runs, ACCURACY, title="twenty"))
    named = [line for line in axes[0].get_lines() if line.get_label().startswith("run_")]
    assert len(named) == 7
    assert len({line.get_color() for line in named}) == 7
    assert sum(line.get_color() == plots.GREY for line in axes[0].get_lines()) == 13


def test_a_curve_of_validations_begins_with_the_untrained_model():
    records = [
        {"kind": "eval", "step": 0, "epoch": 0.0, "untrained_accuracy": 0.3, "untrained_loss": 2.0},
        {"kind": "train", "step": 5, "epoch": 0.5, "loss": 1.5},
        {"kind": "eval", "step": 10, "epoch": 1.0, "eval_accuracy": 0.7, "eval_loss": 1.0},
    ]
    run = RunCurves("r", records, {})
    assert run.curve("eval_accuracy", "", 100).points == [(0.0, 30.0), (1.0, 70.0)]
    assert run.curve("eval_loss", "").points == [(0.0, 2.0), (1.0, 1.0)]
    assert run.curve("loss", "").points == [(0.5, 1.5)]
    assert run.validated() == ["eval_loss", "eval_accuracy"]


def test_long_curves_keep_their_ends_and_few_points():
    records = [{"kind": "train", "epoch": step / 100, "loss": step} for step in range(10_000)]
    points = RunCurves("r", records, {}).curve("loss", "").points
    assert points[-1] == (99.99, 9999)
    assert 100 < len(points) <= curves._MOST_POINTS // 8


@pytest.mark.parametrize("figures", ["pdf", "svg"])
def test_a_picture_is_also_drawn_in_the_format_that_is_asked_for(tmp_path, figures):
    with plots.figures_beside(figures):
        plot_run(tmp_path / "c.png", run())
    plot_run(tmp_path / "alone.png", run())
    assert {file.name for file in tmp_path.iterdir()} == {"alone.png", f"c.{figures}", "c.png"}
    assert (tmp_path / f"c.{figures}").read_bytes()[:5] in (b"%PDF-", b"<?xml")
    assert imread(tmp_path / "c.png").shape == imread(tmp_path / "alone.png").shape


def test_a_picture_of_a_page_has_its_letters_as_text_its_colours_by_name_and_what_is_drawn_in_each_panel():
    drawing = Drawing("what it shows <b>")
    plot_run(drawing, run("이름"))
    svg = str(drawing.svg)
    assert svg.count("<svg") == svg.count("<title>") == 4
    assert "<title>training loss</title>" not in svg  # the first panel says what all of them show
    assert "<title>what it shows &lt;b&gt;</title>" in svg
    assert ">epoch</text>" in svg
    assert "var(--blue)" in svg
    assert "#0072b2" not in svg.lower()
    assert len(svg) < 40_000


def test_powers_of_ten_have_their_minus_where_the_korean_font_lacks_it():
    drawing = Drawing()
    with plots.picture(drawing, title="학습률", width=4, height=3) as figure:
        axis = figure.subplots()
        axis.plot([1e-3, 1e-1], [-0.5, 0.5])
        axis.set_xscale("log")
    assert "\N{CURRENCY SIGN}" not in drawing.svg  # what matplotlib draws for a letter that a font lacks
    assert drawing.svg.count("\N{MINUS SIGN}") >= 2


def test_failing_stands_above_the_axes_where_no_score_is(tmp_path, monkeypatch):
    from dure.studies.progressive.plot import plot_progressive
    from tests.platform.studies.progressive.progressive_studies import candidate, stage, summary

    data = summary(
        candidates=[
            candidate(1e-4, "failed", [stage(1, 0.1, 0.6)]),
            candidate(1e-3, "completed", [stage(1, 0.1, 0.7)]),
        ],
        winner="rate_0.001",
        stages=[stage(1, 0.1, 0.7)],
    )
    axes = axes_of(monkeypatch, lambda: plot_progressive(Path(tmp_path / "p.png"), data))
    [failed] = [line for line in axes[0].get_lines() if line.get_marker() == "X"]
    assert failed.get_ydata()[0] > 1
    assert failed.get_transform() == axes[0].get_xaxis_transform()


def test_a_font_that_was_installed_after_matplotlib_listed_them_is_found(tmp_path, monkeypatch):
    font = font_manager.findfont("DejaVu Sans")
    (tmp_path / "broken.ttf").write_text("no font")
    monkeypatch.setattr(plots, "_HANGUL_FONTS", ("DejaVu Sans",))
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [])
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(tmp_path / "broken.ttf"), font])
    plots.hangul_font.cache_clear()
    assert plots.hangul_font() == "DejaVu Sans"
    plots.hangul_font.cache_clear()


def test_a_machine_without_hangul_draws_a_name_in_it_without_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "hangul_font", lambda: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_run(tmp_path / "c.png", run("감정 분류"))
    assert imread(tmp_path / "c.png").size
