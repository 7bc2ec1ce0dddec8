"""Style of all figures, and SVG figures for HTML pages."""

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEXT, MUTED, ACCENT, PRIMARY = "#1f2933", "#9aa5b1", "#c8553d", "#2b6f97"
SERIES_COLORS = (PRIMARY, ACCENT, "#d9a441", "#5c8a5a", "#7d5ba6", "#4d5965", "#3aa6a0", "#a35d6a")  # one for each run
RASTERIZE_ABOVE = 2000  # points; a browser is slow with 10,000 shapes
RASTER_DPI = 170


@dataclass(frozen=True)
class SvgFigure:
    """A figure of a page. `width` is in CSS pixels."""

    title: str
    caption: str
    svg: str
    width: int


@contextmanager
def project_style() -> Iterator[None]:
    """Draw in the style of this project, without a display, until the block ends."""
    import matplotlib as mpl  # pylint: disable=import-outside-toplevel  # 1 s that only drawing needs

    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    mpl.use("agg")
    lines: Any = {"axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": MUTED}
    text: Any = {
        "text.color": TEXT,
        "axes.labelcolor": TEXT,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "font.size": 10,
    }
    with mpl.rc_context({**lines, **text}):
        yield


def draw_svg(title: str, caption: str, plot: "Callable[[Figure], None]", size: tuple[float, float]) -> SvgFigure:
    """Draw a figure of `size` inches (width, height) as SVG. The same plot always gives the same bytes."""
    import matplotlib as mpl  # pylint: disable=import-outside-toplevel  # 1 s that only drawing needs
    from matplotlib.figure import Figure  # pylint: disable=import-outside-toplevel

    # Text stays text. The salt keeps the ids of figures apart, since all stand in one page.
    style: Any = {"svg.hashsalt": title, "svg.fonttype": "none", "font.family": "sans-serif"}
    with project_style(), mpl.rc_context(style):
        figure = Figure(figsize=size, layout="constrained", dpi=100)
        plot(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", dpi=RASTER_DPI, metadata={"Date": None, "Title": title})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
    return SvgFigure(title, caption, svg, round(100 * size[0]))
