"""Pictures as a part of a page: SVG whose colours and letters are those of the page around it."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import escape

from dure.reporting.plots import BLUE, GREEN, GREY, ORANGE, PALE, PURPLE, SKY, VERMILION

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
