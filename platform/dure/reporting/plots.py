"""The look that all our pictures share: colours, fonts, languages, and how they are written: into a file or a page.

On a page they are SVG whose colours and letters are those of the page around it.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from markupsafe import escape

from dure.files import written_beside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008), "Color Universal Design": told apart by all kinds of colour vision, and in grey by marker.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, ORANGE = "#56B4E9", "#E69F00"
GREY, PALE = "#7F7F7F", "#C8C8C8"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, "#000000", GREY)
"""Colours of lines that are told apart by nothing else."""

FigureFormat = Literal["pdf", "svg"]

_MOST_ABREAST = 4
_LONGEST_ROW = 96
"""Letters that the names of a legend may have side by side."""
_HANGUL_FONTS = (
    "NanumGothic",
    "Noto Sans CJK KR",
    "Noto Sans KR",
    "Apple SD Gothic Neo",
    "AppleGothic",
    "Malgun Gothic",
)
_COLOURS = {
    "#000000": "currentColor",
    "#404040": "currentColor",
    "#ffffff": "var(--ground)",
    "#b0b0b0": "var(--line)",
    BLUE.lower(): "var(--blue)",
    VERMILION.lower(): "var(--vermilion)",
    GREEN.lower(): "var(--green)",
    PURPLE.lower(): "var(--purple)",
    SKY.lower(): "var(--sky)",
    ORANGE.lower(): "var(--orange)",
    GREY.lower(): "var(--grey)",
    PALE.lower(): "var(--pale)",
}
"""What the page calls each colour, so that light and dark pages have shades of their own."""
_STYLE = re.compile(r'style="[^"]*"')
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_PLACE = re.compile(r'(?<= )(d|x|y|x1|x2|y1|y2|transform|points)="([^"]*)"')
_LONG = re.compile(r"(\.\d)\d+")
_NAME = re.compile(r' id="([^"]*)"')
_FONT = re.compile(r"(font: [\d.]+px)[^;\"]*|; font-family: [^;\"]*")
_beside: ContextVar[FigureFormat | None] = ContextVar("beside", default=None)


@cache
def hangul_font() -> str | None:
    """Return a font of this machine that has Korean letters, or None."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    if {font.name for font in fontManager.ttflist}.isdisjoint(_HANGUL_FONTS):
        # The list is a file that matplotlib wrote once: a font that was installed since is not in it.
        for file in {*findSystemFonts()} - {font.fname for font in fontManager.ttflist}:
            with suppress(OSError, RuntimeError):  # a file that is no font
                fontManager.addfont(file)
    known = {font.name for font in fontManager.ttflist}
    return next((name for name in _HANGUL_FONTS if name in known), None)


def spoken(words: Mapping[str, tuple[str, str]], target: Path | Drawing) -> dict[str, str]:
    """Return labels that are given in Korean and English: the English ones on a page or without a Korean font."""
    is_korean = isinstance(target, Path) and hangul_font() is not None
    return {name: each[0 if is_korean else 1] for name, each in words.items()}


@contextmanager
def figures_beside(figures: FigureFormat | None) -> Iterator[None]:
    """Let every picture that is drawn in the body also be written in another format, beside its PNG."""
    token = _beside.set(figures)
    try:
        yield
    finally:
        _beside.reset(token)


@contextmanager
def picture(
    target: Path | Drawing, *, title: str, width: float, height: float, shared_legend: bool = True
) -> Iterator[Figure]:
    """Give a figure to draw into, then write it with its title.

    A file gets PNG, and the format of :func:`figures_beside` beside it; it is left as it was when the drawing fails.
    The size is in inches. One legend beneath is for all axes where ``shared_legend``; else each axis has its own.
    """
    import matplotlib

    with matplotlib.rc_context(_settings(is_inline=not isinstance(target, Path))):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        # Made by hand and not by pyplot: no window system is asked for, and none of the user's state is touched.
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        if shared_legend:
            _add_legend(figure)
        with warnings.catch_warnings():
            # The reader's fonts have the letters that this machine's may lack; a file without them has boxes there.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            if isinstance(target, Path):
                figure.suptitle(verbatim(title))
                _write(figure, target)
            else:
                target.take(figure, title)


def _settings(*, is_inline: bool) -> dict[str, Any]:
    settings: dict[str, Any] = {"font.size": 9}
    font = hangul_font()
    if font is not None:
        # Powers of ten take the first font alone, and a Korean one lacks their minus.
        settings["font.family"] = ["DejaVu Sans", font]
    if is_inline or _beside.get() == "svg":
        settings |= {"svg.hashsalt": "dure"}
    if is_inline:
        settings |= {"svg.fonttype": "none", "legend.framealpha": 0.0}
    return settings


def _add_legend(figure: Figure) -> None:
    handles: Mapping[str, Any] = {
        label: handle
        for axis in figure.axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    if not handles:
        return
    columns = len(handles) if len(handles) <= _MOST_ABREAST else math.ceil(len(handles) / 2)
    longest = max(map(len, handles))
    columns = max(1, min(columns, _LONGEST_ROW // max(1, longest + 4)))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)


def _write(figure: Figure, path: Path) -> None:
    with written_beside(path) as beside, beside.open("wb") as file:
        figure.savefig(file, format="png", dpi=150)
    other = _beside.get()
    if other is not None:
        undated = {"CreationDate": None} if other == "pdf" else {"Date": None}
        with written_beside(path.with_suffix(f".{other}")) as beside, beside.open("wb") as file:
            figure.savefig(file, format=other, metadata=undated)


def verbatim(text: str) -> str:
    """Return what a user wrote so that it is drawn as it is: matplotlib takes what stands between two $ for a formula."""
    return text.replace("$", r"\$")


def grid(axis: Axes) -> None:
    """Draw the lines by which heights are read, behind everything else."""
    axis.grid(alpha=0.3, linewidth=0.6)
    axis.set_axisbelow(True)


def whole_epochs(axis: Axes, last: float) -> None:
    """Mark whole epochs on the horizontal axis, which ends with the epoch that training ended in."""
    from matplotlib.ticker import MaxNLocator

    axis.set_xlim(0, 1.02 * max(1, math.ceil(last - 1e-6)))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


@dataclass
class Drawing:
    """A picture for a page, once it is drawn; panel by panel where it was drawn so.

    ``alt`` says what it shows for whoever cannot see it, or else its title does; ``svg`` is empty until it is drawn.
    """

    alt: str = ""
    svg: str = ""

    def take(self, figure: Figure, title: str) -> None:
        """Add a figure as SVG: an eighth of matplotlib's own size, with the page's letters and colours."""
        file = io.StringIO()
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(file, format="svg", transparent=True, metadata=metadata)
        said = title if self.svg else self.alt or title
        self.svg += inlined(file.getvalue(), said)


def inlined(svg: str, alt: str) -> str:
    """Return SVG as matplotlib writes it as a part of a page.

    Its text is text, not outlines; ``alt`` says what it shows.
    """
    width, height = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0]
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->|\n\s*", " ", body, flags=re.DOTALL)
    body = _STYLE.sub(_of_page, body)
    body = _PLACE.sub(lambda found: f'{found[1]}="{_LONG.sub(chr(92) + "1", found[2])}"', body)
    used = set(re.findall(r"(?:#|url\(#)([\w.-]+)", body))
    body = _NAME.sub(lambda found: found[0] if found[1] in used else "", body)
    body = re.sub(r"\s{2,}", " ", body)
    # 96 pixels of a page are an inch, and so are 72 units here.
    size = f"--width:{float(width) / 72 * 96:.0f}px"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'viewBox="0 0 {width} {height}" style="{size}"><title>{escape(alt)}</title>{body}'
    )


def _of_page(style: re.Match[str]) -> str:
    text = _COLOUR.sub(lambda colour: _COLOURS.get(colour[0], colour[0]), style[0])
    return _FONT.sub(lambda found: (found[1] or "").replace("font:", "font-size:"), text)
