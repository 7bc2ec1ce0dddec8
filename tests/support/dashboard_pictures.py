"""Pictures of the dashboards, drawn without Grafana from the answers of a running Prometheus."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from grafana.generate import DASHBOARD_DIR
from grafana.prometheus_api import Prometheus, Series, panel_queries, read_panels
from housing.core.environment import PROJECT
from housing.core.files import atomic_write
from housing.plots.svg import ACCENT, MUTED, PRIMARY, SERIES_COLORS, TEXT, project_style

OF_SERVER = tuple(DASHBOARD_DIR / f"{name}.json" for name in ("service", "model", "drift"))  # what a server alone fills
INTERVAL, WINDOW = "1m", "1h"  # the values of $__rate_interval and $window
MAX_SPAN_SECONDS, N_STEPS = 6 * 3600, 120
GOOD = "#5c8a5a"
FIGURE_WIDTH, CELL_HEIGHT = 15.0, 0.34  # inches: width of a dashboard, height of a grid step
N_COLOURS = 200  # a small palette makes a small file
TITLE_HEIGHT, LEGEND_ROW_HEIGHT = 0.75, 0.55  # grid steps
MAX_LEGEND_ROWS = 3
CHARS_PER_STEP = 9  # characters of a legend per grid step
TICK_SECONDS, MAX_TICKS = (60, 120, 300, 600, 1800, 3600), 6  # seconds between ticks, ticks per axis
BYTES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
LONG_TICK_SECONDS = (6 * 3600, 86_400, 7 * 86_400, 30 * 86_400)  # for ages


@dataclass(frozen=True)
class PanelData:
    """A panel with the answers to its queries."""

    definition: dict[str, Any]
    title: str
    results: list[tuple[str, list[Series]]]  # by legend
    span: tuple[float, float]  # unix seconds

    @property
    def unit(self) -> str:
        """The unit of its values."""
        return str(self.definition["fieldConfig"]["defaults"]["unit"])

    @property
    def threshold(self) -> float | None:
        """The value at which the colour changes to red or green."""
        steps = self.definition["fieldConfig"]["defaults"]["thresholds"]["steps"]
        return float(steps[1]["value"]) if len(steps) > 1 else None

    def colour(self, value: float) -> str:
        """The colour of a value."""
        steps = self.definition["fieldConfig"]["defaults"]["thresholds"]["steps"]
        name = [step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]
        return {"red": ACCENT, "green": GOOD, "blue": PRIMARY}[name]

    @property
    def legend(self) -> list[str]:
        """The names in the legend. Some panel types have none."""
        text = self.definition["type"] in ("timeseries", "barchart")
        names = (
            [name for name, _ in self.named_series()]
            if self.definition["type"] == "timeseries"
            else [name for name, _ in self.results]
        )
        return names if text else []

    @property
    def legend_columns(self) -> int:
        """The number of columns of the legend."""
        longest = max(map(len, self.legend), default=1)
        return max(1, self.definition["gridPos"]["w"] * CHARS_PER_STEP // (longest + 6))

    def named_series(self) -> Iterator[tuple[str, Series]]:
        """Yield each series with its name."""
        for legend, series_list in self.results:
            for series in series_list:
                yield series.display_name(legend), series


def main() -> None:
    """Draw all dashboards into docs/images/."""
    match sys.argv[1:]:
        case [url]:
            draw(Prometheus(url.rstrip("/")), PROJECT / "docs" / "images", DASHBOARD_DIR.glob("*.json"))
        case _:
            sys.exit("error: the address of Prometheus is missing: scripts/dashboards draw http://127.0.0.1:9090")


def draw(prometheus: Prometheus, folder: Path, dashboards: Iterable[Path]) -> None:
    """Draw the last hours of dashboards as `dashboard-<name>.png`, or less if Prometheus has less."""
    end = time.time()
    start = max(end - MAX_SPAN_SECONDS, int(prometheus.get("status/tsdb")["headStats"]["minTime"]) / 1000)
    for path in sorted(dashboards):
        with project_style():
            _save(_draw_dashboard(list(_query_panels(prometheus, path, start, end))), folder / f"dashboard-{path.stem}.png")


def _query_panels(prometheus: Prometheus, path: Path, start: float, end: float) -> Iterator[PanelData]:
    """Query all panels. A repeated panel is queried for each value of its variable, and drawn side by side."""
    for panel in read_panels(path):
        name = panel.get("repeat")
        values = (
            sorted(series.labels[name] for series in prometheus.query(f"group by ({name}) (housing_column_bin_share)"))
            if name
            else [""]
        )
        for position, value in enumerate(values):
            variables = {"window": WINDOW, **({name: value} if name else {})}
            results = [
                (legend, _query(prometheus, panel, expr, start, end))
                for legend, expr in panel_queries(panel, INTERVAL, **variables)
            ]
            grid = panel["gridPos"]
            moved = (
                {**grid, "x": position * grid["w"] % 24, "y": grid["y"] + position * grid["w"] // 24 * grid["h"]}
                if name
                else grid
            )
            yield PanelData({**panel, "gridPos": moved}, panel["title"].replace(f"${name}", value), results, (start, end))


def _query(prometheus: Prometheus, panel: dict[str, Any], expr: str, start: float, end: float) -> list[Series]:
    if panel["type"] == "barchart":
        return prometheus.query(expr, end)
    return prometheus.query_range(expr, start, end, max((end - start) / N_STEPS, 1))


def _draw_dashboard(panel_data: Sequence[PanelData]) -> Figure:
    rows = max(panel.definition["gridPos"]["y"] + panel.definition["gridPos"]["h"] for panel in panel_data)
    figure = Figure(figsize=(FIGURE_WIDTH, CELL_HEIGHT * rows), dpi=80)
    for panel in panel_data:
        grid = panel.definition["gridPos"]
        heading = panel.definition["type"] == "row"
        style: Any = {"fontsize": 13, "fontweight": "bold"} if heading else {"fontsize": 10, "color": TEXT}
        figure.text(grid["x"] / 24 + 0.01, 1 - (grid["y"] + 0.5) / rows, panel.title, va="center", **style)
        if not heading:
            PLOTTERS[panel.definition["type"]](figure.add_axes(_axes_rect(panel, rows)), panel)
    return figure


def _axes_rect(panel: PanelData, rows: int) -> tuple[float, float, float, float]:
    """Return left, bottom, width and height of a panel's axes, as fractions of the figure."""
    grid = panel.definition["gridPos"]
    below = 0.9 + LEGEND_ROW_HEIGHT * min(ceil(len(panel.legend) / panel.legend_columns), MAX_LEGEND_ROWS)
    left = grid["x"] / 24 + (0.1 if panel.definition["type"] == "status-history" else 0.045)
    bottom = 1 - (grid["y"] + grid["h"] - below) / rows
    return left, bottom, (grid["x"] + grid["w"]) / 24 - 0.012 - left, 1 - (grid["y"] + TITLE_HEIGHT + 0.45) / rows - bottom


def _stat(axes: Axes, panel: PanelData) -> None:
    axes.set_axis_off()
    named = list(panel.named_series())
    values = [series.values[-1] for _, series in named]
    text = "   ".join(format_value(value, panel.unit) for value in values) or "no data"
    colour = panel.colour(max(values)) if values else MUTED
    for _, series in named:
        axes.fill_between(series.times, 0, series.values, color=colour, alpha=0.12, linewidth=0)
    axes.set_ylim(0, 2.5 * max((max(series.values) for _, series in named), default=0) or 1)
    axes.text(0.5, 0.45, text, fontsize=20, ha="center", va="center", color=colour, transform=axes.transAxes)


def _timeseries(axes: Axes, panel: PanelData) -> None:
    named = list(panel.named_series())
    stacked = panel.definition["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal"
    below: dict[float, float] = {}
    for position, (name, series) in enumerate(named):
        colour = SERIES_COLORS[position % len(SERIES_COLORS)]
        floor = [below.get(grid, 0.0) for grid in series.times] if stacked else [0.0] * len(series.times)
        top = [low + value for low, value in zip(floor, series.values, strict=True)]
        below |= dict(zip(series.times, top, strict=True))
        axes.plot(series.times, top, color=colour, linewidth=1.3, label=name)
        axes.fill_between(series.times, floor, top, color=colour, alpha=0.25 if stacked else 0.04, linewidth=0)
    if panel.threshold is not None:
        axes.axhline(panel.threshold, color=panel.colour(panel.threshold), linestyle="--", linewidth=1)
    is_flat = all(max(series.values) == 0 for _, series in named)
    flat = 1 if panel.threshold is None or panel.unit == "short" else 2 * panel.threshold
    axes.set_ylim(0, flat if is_flat else axes.get_ylim()[1])
    axes.grid(axis="y", color=MUTED, alpha=0.3, linewidth=0.5)
    _format_value_axis(axes, panel.unit)
    _format_time_axis(axes, panel)
    _add_legend(axes, panel)


def _status_history(axes: Axes, panel: PanelData) -> None:
    named = sorted(panel.named_series(), key=lambda item: item[0])
    times = sorted({grid for _, series in named for grid in series.times})
    table = np.full((len(named), len(times)), np.nan)
    for position, (_, series) in enumerate(named):
        table[position, np.searchsorted(times, series.times)] = series.values
    corners = [*times, times[-1] + (times[-1] - times[0]) / max(len(times) - 1, 1)]
    scale = LinearSegmentedColormap.from_list("psi", [GOOD, "#d9a441", ACCENT])
    axes.pcolormesh(corners, np.arange(len(named) + 1), table, cmap=scale, vmin=0, vmax=panel.threshold, alpha=0.85)
    axes.hlines(np.arange(1, len(named)), corners[0], corners[-1], color="white", linewidth=1.5)
    axes.set_yticks(np.arange(len(named)) + 0.5, [name for name, _ in named])
    axes.invert_yaxis()
    _format_time_axis(axes, panel)


def _state_timeline(axes: Axes, panel: PanelData) -> None:
    for position, (name, series) in enumerate(panel.named_series()):
        start, end = series.times[0], series.times[-1]
        axes.add_patch(
            Rectangle((start, position + 0.15), end - start, 0.7, color=SERIES_COLORS[position % len(SERIES_COLORS)], alpha=0.7)
        )
        late = start > sum(panel.span) / 2  # the text begins or ends inside of the panel
        axes.text(end if late else start, position + 0.5, f" {name} ", va="center", ha="right" if late else "left", fontsize=8)
        axes.update_datalim([(start, position), (end, position + 1)])
    axes.set_yticks([])
    axes.autoscale_view()
    _format_time_axis(axes, panel)


def _barchart(axes: Axes, panel: PanelData) -> None:
    shares = [{series.labels["bin"]: series.values[0] for series in series_list} for _, series_list in panel.results]
    bins = sorted(set().union(*shares))
    for position, ((name, _), share) in enumerate(zip(panel.results, shares, strict=True)):
        heights = [share.get(bin_, 0.0) for bin_ in bins]
        axes.bar(np.arange(len(bins)) + 0.4 * position - 0.2, heights, 0.38, label=name, color=(PRIMARY, MUTED)[position])
    axes.set_xticks(np.arange(len(bins)), bins, fontsize=7)
    axes.yaxis.set_major_formatter(lambda value, _: format_value(value, panel.unit))
    axes.tick_params(axis="y", labelsize=7)
    _add_legend(axes, panel)


PLOTTERS = {
    "stat": _stat,
    "timeseries": _timeseries,
    "status-history": _status_history,
    "state-timeline": _state_timeline,
    "barchart": _barchart,
}


def _format_value_axis(axes: Axes, unit: str) -> None:
    """Format the values as Grafana does, with ticks at round numbers of minutes, hours, days or bytes."""
    top = axes.get_ylim()[1]
    if unit == "s" and top > TICK_SECONDS[0]:
        steps = TICK_SECONDS + LONG_TICK_SECONDS
        step = next((step for step in steps if top / step <= MAX_TICKS), steps[-1])
        axes.set_yticks(np.arange(0, top, step))
    elif unit == "bytes":
        axes.set_yticks(np.arange(0, top, 2 ** ceil(np.log2(top / MAX_TICKS))))
    axes.yaxis.set_major_formatter(lambda value, _: format_value(value, unit))


def _format_time_axis(axes: Axes, panel: PanelData) -> None:
    """Set ticks at round times of day. The axis is in unix seconds."""
    start, end = panel.span
    step = next((step for step in TICK_SECONDS if (end - start) / step <= MAX_TICKS), TICK_SECONDS[-1])
    axes.set_xticks(np.arange(np.ceil(start / step) * step, end + 1, step))
    axes.xaxis.set_major_formatter(lambda value, _: time.strftime("%H:%M", time.gmtime(value)))
    axes.tick_params(labelsize=7)
    axes.set_xlim(start, end)


def _add_legend(axes: Axes, panel: PanelData) -> None:
    """Add a legend. If it is full, it has the lines with the highest last values, as in Grafana."""
    handles, names = axes.get_legend_handles_labels()
    max_entries, columns = MAX_LEGEND_ROWS * panel.legend_columns, panel.legend_columns
    if len(handles) > max_entries:
        ranked = sorted(axes.get_lines()[: len(handles)], key=lambda line: -np.asarray(line.get_ydata())[-1])
        handles, names = list(ranked), [str(line.get_label()) for line in ranked]
    style: Any = {"fontsize": 7, "frameon": False, "handlelength": 1.2, "columnspacing": 1, "borderpad": 0, "labelspacing": 0.3}
    axes.legend(handles[:max_entries], names[:max_entries], loc="upper left", bbox_to_anchor=(0, -0.1), ncols=columns, **style)


def format_value(value: float, unit: str) -> str:
    """Format a value as Grafana does."""
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s":
        for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs")):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}"
        return "0"
    if unit == "bytes":
        size, name = next(((size, name) for size, name in BYTES if abs(value) >= size), (1, "B"))
        return f"{value / size:.3g} {name}"
    number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return number + {"reqps": " req/s", "rowsps": " rows/s", "cps": " /s"}.get(unit, "")


def _save(figure: Figure, path: Path) -> None:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    with atomic_write(path) as partial:
        Image.open(buffer).convert("RGB").quantize(N_COLOURS).save(partial, format="png", optimize=True)


if __name__ == "__main__":
    main()
