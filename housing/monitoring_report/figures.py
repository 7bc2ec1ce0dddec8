"""Figures of a monitoring report, as SVG."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from housing.monitoring.domain_classifier import Z_LIMIT
from housing.monitoring_report.period_data import PeriodData
from housing.monitoring_report.timeline import Timeline
from housing.monitoring_report.unknown import version_text
from housing.plots.svg import ACCENT, MUTED, PRIMARY, SERIES_COLORS, SvgFigure, draw_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DAY_SECONDS = 86_400  # a day is Matplotlib's unit of times
SIZE = (5.5, 4.0)  # inches: two side by side
PERCENTILES = {0.5: MUTED, 0.95: PRIMARY, 0.99: ACCENT}
REALISED_SHIFT = 0.75  # of a bucket, beside the estimate at its middle
LINE: Any = {"markersize": 3, "linewidth": 1}
MAX_VERSIONS = 8  # in one figure, the latest; tables have all


def draw_traffic(data: PeriodData) -> SvgFigure:
    """Draw the requests of each version over time."""
    requests = data.traffic.requests
    shown = [key for key in data.versions if key in requests][-MAX_VERSIONS:]

    def plot(axes: "Axes") -> None:
        bottom = dict.fromkeys(data.timeline.buckets, 0)
        for key, color in zip(shown, SERIES_COLORS, strict=False):
            heights = [requests[key][bucket] for bucket in bottom]
            width = data.timeline.width / DAY_SECONDS
            style: Any = {"align": "edge", "color": color, "label": version_text(key)}
            axes.bar(_starts(data.timeline), heights, width, list(bottom.values()), **style)
            bottom = {bucket: below + height for (bucket, below), height in zip(bottom.items(), heights, strict=True)}
        axes.set_ylabel(f"requests per {data.timeline.width_text}")

    return _draw("Requests", "By the version that answered. Refused requests are not in the log.", data.timeline, plot)


def draw_latency(data: PeriodData) -> SvgFigure:
    """Draw percentiles of the latency over time."""
    from matplotlib.ticker import LogLocator, NullLocator  # pylint: disable=import-outside-toplevel  # 1 s that only drawing needs

    histograms = data.traffic.latency

    def plot(axes: "Axes") -> None:
        for level, color in PERCENTILES.items():
            buckets = sorted(histograms)
            values = [histograms[bucket].quantile(level).value for bucket in buckets]
            axes.plot(_middles(buckets, data.timeline), values, ".-", color=color, linewidth=1, label=f"p{100 * level:.0f}")
        axes.set(yscale="log", ylabel="milliseconds")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())

    return _draw("Latency", f"Percentiles of each {data.timeline.width_text}, without the network.", data.timeline, plot)


def draw_errors(data: PeriodData, key: str, unit: str) -> SvgFigure:
    """Draw the estimated and the realised RMSE of a version over time."""
    timeline = data.timeline.coarser()
    estimates, realised = data.windows.estimates_by_bucket.get(key, {}), data.realised_by_bucket.get(key, {})

    def plot(axes: "Axes") -> None:
        if estimates:
            ordered = [estimates[bucket] for bucket in sorted(estimates)]
            ends = [item.rmse_range for item in ordered]
            middle = [item.rmse for item in ordered]
            _error_bars(axes, _middles(sorted(estimates), timeline), middle, ends, PRIMARY, "estimated", "o-")
            axes.axhline(ordered[-1].held_out_rmse, color=MUTED, linestyle="--", linewidth=1, label="held-out rows")
        for has_interval, label in ((True, "realised"), (False, "realised, too few for an interval")):
            shown = {bucket: item.rmse for bucket, item in sorted(realised.items()) if item.rmse.has_interval == has_interval}
            if shown:
                times = _middles(list(shown), timeline, REALISED_SHIFT)
                ends = [(item.value if item.lower is None else item.lower, item.value if item.upper is None else item.upper)
                        for item in shown.values()]  # fmt: skip
                _error_bars(
                    axes, times, [item.value for item in shown.values()], ends, ACCENT, label, "s" if has_interval else "x"
                )
        axes.set_ylabel(f"RMSE, {unit}" if unit else "RMSE")
        axes.set_ylim(bottom=0)

    caption = (
        f"Estimated: the windows that ended in each {timeline.width_text}, with two standard errors, which are too narrow on"
        " shifted rows. Realised: rows with true values, with 95 % intervals."
    )
    return _draw(f"Error of {version_text(key)}", caption, timeline, plot)


def draw_drift(data: PeriodData) -> SvgFigure:
    """Draw how far windows are from the training rows over time."""
    drift = data.windows.drift_by_bucket
    shown = [key for key in data.versions if key in drift][-MAX_VERSIONS:]

    def plot(axes: "Axes") -> None:
        for key, color in zip(shown, SERIES_COLORS, strict=False):
            buckets = sorted(drift[key])
            values = [drift[key][bucket].highest_z for bucket in buckets]
            axes.plot(_middles(buckets, data.timeline), values, "o-", **LINE, color=color, label=version_text(key))
        axes.axhline(Z_LIMIT, color=MUTED, linestyle="--", linewidth=1, label="limit of the alert")
        axes.set_ylabel("standard deviations above chance")

    caption = f"The highest of the windows that ended in each {data.timeline.width_text}."
    return _draw("Drift of windows from the training rows", caption, data.timeline, plot)


def _error_bars(
    axes: "Axes",
    times: Sequence[float],
    values: Sequence[float],
    ends: Sequence[tuple[float, float]],
    color: str,
    label: str,
    fmt: str,
) -> None:
    below = [value - lower for value, (lower, _) in zip(values, ends, strict=True)]
    above = [upper - value for value, (_, upper) in zip(values, ends, strict=True)]
    axes.errorbar(times, values, [below, above], fmt=fmt, **LINE, color=color, label=label)


def _draw(title: str, caption: str, timeline: Timeline, plot: "Callable[[Axes], None]") -> SvgFigure:
    def on_time_axis(figure: "Figure") -> None:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # pylint: disable=import-outside-toplevel

        axes = figure.subplots()
        plot(axes)
        locator = AutoDateLocator()  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        axes.set_xlim(timeline.since / DAY_SECONDS, timeline.until / DAY_SECONDS)
        axes.set_xlabel("UTC")
        axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)

    return draw_svg(title, caption, on_time_axis, SIZE)


def _starts(timeline: Timeline) -> list[float]:
    return [bucket / DAY_SECONDS for bucket in timeline.buckets]


def _middles(buckets: Sequence[int], timeline: Timeline, share: float = 0.5) -> list[float]:
    return [(bucket + share * timeline.width) / DAY_SECONDS for bucket in buckets]
