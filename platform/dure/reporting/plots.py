"""The look that all our pictures share: colours, fonts, languages, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dure.files import written_beside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008), "Color Universal Design": told apart by all kinds of colour vision, and in grey by marker.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
GREY, PALE = "#7F7F7F", "#C8C8C8"

_MOST_ABREAST = 4
_HANGUL_FONTS = (
    "NanumGothic",
    "Noto Sans CJK KR",
    "Noto Sans KR",
    "Apple SD Gothic Neo",
    "AppleGothic",
    "Malgun Gothic",
)


def hangul_font() -> str | None:
    """Return a font of this machine that has Korean letters, or None."""
    from matplotlib import font_manager

    known = {font.name for font in font_manager.fontManager.ttflist}
    return next((name for name in _HANGUL_FONTS if name in known), None)


def language() -> str:
    """Return the language of labels: ``ko``, or ``en`` on a machine that cannot draw Korean letters."""
    return "en" if hangul_font() is None else "ko"


@contextmanager
def picture(path: Path, *, title: str, width: float, height: float) -> Iterator[Figure]:
    """Give a figure to draw into, then write it as PNG with its title, and one legend for all its axes.

    Width and height are in inches; the file is left as it was when the drawing fails.
    """
    import matplotlib

    font = hangul_font()
    settings: dict[str, Any] = {"font.size": 9, "axes.unicode_minus": False}
    if font is not None:
        settings["font.family"] = [font, "DejaVu Sans"]
    # Figures made by hand and not by pyplot: no window system is asked for, and none of the user's state is touched.
    with matplotlib.rc_context(settings):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        handles = {
            label: handle
            for axis in figure.axes
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        if handles:
            columns = len(handles) if len(handles) <= _MOST_ABREAST else math.ceil(len(handles) / 2)
            figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)
        figure.suptitle(title)
        with written_beside(path) as beside, beside.open("wb") as file:
            figure.savefig(file, format="png", dpi=150)


def grid(axis: Axes) -> None:
    """Draw the lines by which heights are read, behind everything else."""
    axis.grid(alpha=0.3, linewidth=0.6)
    axis.set_axisbelow(True)
