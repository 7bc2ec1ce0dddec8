"""Kinds of panels, built with Grafana's own SDK."""

from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard, prometheus
from grafana_foundation_sdk.models import barchart, common, stat, statetimeline, statushistory, timeseries
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.alerts import Alert

SOURCE = DataSourceRef(type_val="prometheus", uid="housing-prometheus")
GOOD, BAD, PLAIN = "green", "red", "blue"
NOW, TRAINING = "now", "training"
MAX_DATA_POINTS = 120  # of a heat map, from left to right
MIN_THRESHOLD = 0.001  # a color begins at its value, so 0 must stay below it


@dataclass(frozen=True)
class PanelSpec:
    """Title, unit and description of a panel, and the alert whose threshold it shows. A dashboard is 24 units wide."""

    title: str
    unit: str
    description: str
    width: int
    alert: Alert | None = None
    height: int = 8


def stat_panel(spec: PanelSpec, expr: str) -> dashboard.Panel:
    """Return a panel of one current number, with its history behind it."""
    options = stat.Options(
        reduce_options=common.ReduceDataOptions(values=False, calcs=["lastNotNull"]),
        color_mode=common.BigValueColorMode.BACKGROUND if spec.alert else common.BigValueColorMode.VALUE,
    )
    return _panel("stat", spec).options(options).with_target(_query(expr, spec.title, "A"))


def timeseries_panel(spec: PanelSpec, queries: dict[str, str], stacked: bool = False, ranked: bool = False) -> dashboard.Panel:
    """Return a panel of lines over time. `queries` has them by legend, in which {{label}} is the value of a label.

    A ranked panel may have many lines: its legend lists those with the highest last values first.
    """
    custom = timeseries.FieldConfig(
        line_width=2,
        fill_opacity=30 if stacked else 5,
        show_points=common.VisibilityMode.NEVER,
        stacking=common.StackingConfig(mode=common.StackingMode.NORMAL if stacked else common.StackingMode.NONE),
        thresholds_style=common.GraphThresholdsStyleConfig(
            mode=common.GraphTresholdsStyleMode.DASHED if spec.alert else common.GraphTresholdsStyleMode.OFF
        ),
    )
    tooltip = common.VizTooltipOptions(mode=common.TooltipDisplayMode.MULTI, sort=common.SortOrder.DESCENDING)
    legend = _ranked_legend() if ranked else _legend()
    panel = _panel("timeseries", spec).custom(custom).options(timeseries.Options(legend=legend, tooltip=tooltip)).min(0)
    for index, (name, expr) in enumerate(queries.items()):
        panel = panel.with_target(_query(expr, name, chr(ord("A") + index)))
    return panel.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))


def status_history_panel(spec: PanelSpec, expr: str, legend: str) -> dashboard.Panel:
    """Return a heat map over time with a row for each series, from green at 0 to red at the alert's threshold."""
    options = statushistory.Options(show_value=common.VisibilityMode.NEVER, legend=_legend(), row_height=0.9, col_width=1.0)
    panel = _panel("status-history", spec).options(options).custom(statushistory.FieldConfig(fill_opacity=80, line_width=0))
    panel = panel.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.CONTINUOUS_GR_YL_RD)).min(0)
    if spec.alert is not None:
        panel = panel.max(spec.alert.threshold)
    return panel.max_data_points(MAX_DATA_POINTS).with_target(_query(expr, legend, "A"))


def state_timeline_panel(spec: PanelSpec, expr: str, legend: str) -> dashboard.Panel:
    """Bars over time: when each series was there."""
    options = statetimeline.Options(show_value=common.VisibilityMode.NEVER, legend=_legend(), merge_values=True)
    return _panel("state-timeline", spec).options(options).with_target(_query(expr, legend, "A"))


def distribution_panel(spec: PanelSpec, live_expr: str, training_expr: str) -> dashboard.Panel:
    """Two bars for each bin: the share of rows now, and of training rows."""
    join = DataTransformerConfig(id_val="joinByField", options={"byField": "bin", "mode": "outer"})
    names = {"Value #A": NOW, "Value #B": TRAINING}
    organize = DataTransformerConfig(
        id_val="organize", options={"excludeByName": {"Time 1": True, "Time 2": True}, "renameByName": names}
    )
    options = barchart.Options(x_field="bin", orientation=common.VizOrientation.VERTICAL, legend=_legend(), group_width=0.8)
    panel = (
        _panel("barchart", spec).options(options).custom(barchart.FieldConfig(fill_opacity=80)).transformations([join, organize])
    )
    for name, expr, reference in ((NOW, live_expr, "A"), (TRAINING, training_expr, "B")):
        panel = panel.with_target(_query(expr, name, reference).format(PromQueryFormat.TABLE).instant())
    return panel.min(0).color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))


def _panel(kind: str, spec: PanelSpec) -> dashboard.Panel:
    panel = dashboard.Panel().type(kind).title(spec.title).unit(spec.unit).datasource(SOURCE)
    panel = panel.span(spec.width).height(spec.height).thresholds(_thresholds(spec.alert)).description(spec.description)
    if spec.alert is None:
        return panel
    runbook = dashboard.DashboardLink(f"Runbook of {spec.alert.name}").type(DashboardLinkType.LINK).url(spec.alert.runbook)
    return panel.description(_with_alert(spec.description, spec.alert)).links([runbook.target_blank(True)])


def _with_alert(description: str, alert: Alert) -> str:
    return f"{description} Alert {alert.name} {alert.comparison} {alert.threshold:g}: [runbook]({alert.runbook})"


def _thresholds(alert: Alert | None) -> dashboard.ThresholdsConfig:
    """Return the colors: red if the alert would fire."""
    if alert is None:
        steps = [Threshold(color=PLAIN)]
    elif alert.comparison == "==":  # the alert fires at the lowest value
        steps = [Threshold(color=BAD), Threshold(color=GOOD, value=alert.threshold + 1)]
    else:
        steps = [Threshold(color=GOOD), Threshold(color=BAD, value=alert.threshold or MIN_THRESHOLD)]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _legend() -> common.VizLegendOptions:
    return common.VizLegendOptions(
        display_mode=common.LegendDisplayMode.LIST, placement=common.LegendPlacement.BOTTOM, show_legend=True
    )


def _ranked_legend() -> common.VizLegendOptions:
    return common.VizLegendOptions(
        display_mode=common.LegendDisplayMode.TABLE,
        placement=common.LegendPlacement.BOTTOM,
        show_legend=True,
        calcs=["lastNotNull"],
        sort_by="Last *",
        sort_desc=True,
    )


def _query(expr: str, legend: str, reference: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(reference).datasource(SOURCE).range()
