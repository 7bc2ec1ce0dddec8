"""What each dashboard shows. This is the one description: scripts/dashboards writes Grafana's files from it.

Thresholds come from prometheus/alerts.yml. Everything follows the variables `version` and `instance` where a figure has
them: what is recorded for the service as a whole does not follow `instance`.
"""

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from grafana import alerts
from grafana.panels import (
    SOURCE,
    PanelSpec,
    distribution_panel,
    stat_panel,
    state_timeline_panel,
    status_history_panel,
    timeseries_panel,
)

ALERTS = alerts.read_alerts()
P99_LATENCY = 'max(route:housing_request_seconds:p99{route=~"/predict|/invocations"})'
LATENCY_BUCKETS = (
    'sum by (le) (rate(housing_request_seconds_bucket{route=~"/predict|/invocations", instance=~"$instance"}[$__rate_interval]))'
)
LIVE_RMSE_RATIO = "version:housing_live_rmse:ratio_to_promoted"


def all_dashboards() -> dict[str, dashboard.Dashboard]:
    """Give all dashboards by the name of their file."""
    return {"service": _service(), "model": _model(), "drift": _drift()}


def _service() -> dashboard.Dashboard:
    board = _dashboard("Service", "Is it healthy? Traffic, errors, latency, saturation.")
    return _saturation(_latency(_traffic(_health(board))))


def _health(board: dashboard.Dashboard) -> dashboard.Dashboard:
    answer = PanelSpec("Servers that answer", "short", "Targets that Prometheus reaches.", 4, ALERTS["HousingDown"], 4)
    ready = PanelSpec("Servers with a model", "short", "A server without a model answers /predict with 503.", 4, None, 4)
    asked = PanelSpec("Requests", "reqps", "Requests a second to all routes.", 4, None, 4)
    failed = PanelSpec("Failed", "percentunit", "Share of answers with 5xx: our fault.", 4, ALERTS["HousingErrors"], 4)
    slow = PanelSpec("Slowest in a hundred", "s", "99th percentile of /predict and /invocations.", 4, ALERTS["HousingSlow"], 4)
    raised = PanelSpec("Alerts", "short", "Alerts that are raised now.", 4, None, 4)
    return (
        board.with_row(dashboard.Row("Now"))
        .with_panel(stat_panel(answer, 'sum(up{job="housing", instance=~"$instance"})'))
        .with_panel(stat_panel(ready, 'sum(housing_ready{instance=~"$instance"})'))
        .with_panel(stat_panel(asked, 'sum(rate(housing_request_seconds_count{instance=~"$instance"}[$__rate_interval]))'))
        .with_panel(stat_panel(failed, "housing:errors:ratio5m"))
        .with_panel(stat_panel(slow, P99_LATENCY))
        .with_panel(stat_panel(raised, 'count(ALERTS{alertstate="firing", alertname=~"Housing.+"}) or vector(0)'))
    )


def _traffic(board: dashboard.Dashboard) -> dashboard.Dashboard:
    requests = PanelSpec("Requests by route and status", "reqps", "What callers ask for, and what they are answered.", 12)
    rows = PanelSpec("Rows by version", "rowsps", "Rows predicted a second; a promotion moves them to the next version.", 12)
    ours = PanelSpec("Share that fails: our fault", "percentunit", "Answers with 5xx.", 6, ALERTS["HousingErrors"])
    theirs = PanelSpec("Share that is refused: the caller's", "percentunit", "Answers with 4xx.", 6)
    refused = PanelSpec("Refused values", "cps", "What the check of rows refuses, by column and reason.", 6)
    ready = PanelSpec("Readiness", "short", "1 where a server has a model in use.", 6, ALERTS["HousingNotReady"])
    by_route = 'sum by (route, status) (rate(housing_request_seconds_count{instance=~"$instance"}[$__rate_interval])) > 0'
    by_version = 'sum by (version) (rate(housing_rows_total{version=~"$version", instance=~"$instance"}[$__rate_interval]))'
    by_reason = 'sum by (column, reason) (rate(housing_rejected_values_total{instance=~"$instance"}[$__rate_interval])) > 0'
    callers = 'sum(status:housing_requests:rate5m{status=~"4.."}) / (sum(status:housing_requests:rate5m) > 0)'
    return (
        board.with_row(dashboard.Row("Traffic and errors"))
        .with_panel(timeseries_panel(requests, {"{{route}} {{status}}": by_route}, stacked=True))
        .with_panel(timeseries_panel(rows, {"version {{version}}": by_version}, stacked=True))
        .with_panel(timeseries_panel(ours, {"5xx": "housing:errors:ratio5m"}))
        .with_panel(timeseries_panel(theirs, {"4xx": callers}))
        .with_panel(timeseries_panel(refused, {"{{column}} {{reason}}": by_reason}))
        .with_panel(timeseries_panel(ready, {"{{instance}}": 'min by (instance) (housing_ready{instance=~"$instance"})'}))
    )


def _latency(board: dashboard.Dashboard) -> dashboard.Dashboard:
    predict = PanelSpec(
        "How long callers wait for predictions", "s", "Of a hundred requests 50, 95, 99 are faster.", 12, ALERTS["HousingSlow"]
    )
    routes = PanelSpec("Slowest in a hundred by route", "s", "99th percentile of every route, over 5 minutes.", 6)
    stages = PanelSpec("Where the time of a prediction goes", "s", "Mean of each part of a request, one on top of the other.", 6)
    percentiles = {f"{share:.0%}": f"histogram_quantile({share}, {LATENCY_BUCKETS})" for share in (0.5, 0.95, 0.99)}
    return (
        board.with_row(dashboard.Row("Latency"))
        .with_panel(timeseries_panel(predict, percentiles))
        .with_panel(timeseries_panel(routes, {"{{route}}": "route:housing_request_seconds:p99"}))
        .with_panel(timeseries_panel(stages, {"{{stage}}": "stage:housing_stage_seconds:mean5m"}, stacked=True))
    )


def _saturation(board: dashboard.Dashboard) -> dashboard.Dashboard:
    busy = PanelSpec("Requests at the same time", "short", "Mean number in work; up to workers x threads can be.", 8)
    dropped = PanelSpec(
        "Answers that are not logged", "short", "Dropped from the prediction log in 15 minutes.", 8, ALERTS["HousingLogDropped"]
    )
    scrape = PanelSpec("Time of a scrape", "s", "How long Prometheus waits for /metrics.", 8)
    return (
        board.with_row(dashboard.Row("Saturation"))
        .with_panel(
            timeseries_panel(busy, {"{{instance}}": _sum_by_instance("rate(housing_request_seconds_sum", "[$__rate_interval])")})
        )
        .with_panel(timeseries_panel(dropped, {"{{instance}}": _sum_by_instance("increase(housing_log_dropped_total", "[15m])")}))
        .with_panel(timeseries_panel(scrape, {"{{instance}}": 'scrape_duration_seconds{job="housing", instance=~"$instance"}'}))
    )


def _sum_by_instance(before: str, after: str) -> str:
    return f'sum by (instance) ({before}{{instance=~"$instance"}}{after})'


def _model() -> dashboard.Dashboard:
    board = _dashboard("Model", "Which version answers, and is it still good?")
    return _predictions(_live_error(_versions(board)))


def _versions(board: dashboard.Dashboard) -> dashboard.Dashboard:
    served = PanelSpec("Version in use", "short", "Which version each server uses, with the alias it follows.", 12, None, 6)
    age = PanelSpec("Age", "s", "Since the model was made.", 4, ALERTS["HousingModelStale"], 6)
    promised = PanelSpec("RMSE when promoted", "short", "Of its validation rows, in the target's unit.", 4, None, 6)
    refused = PanelSpec(
        "Version refused",
        "short",
        "Servers for which the version at the alias could not be had or proven.",
        4,
        ALERTS["HousingModelRejected"],
        6,
    )
    info = 'housing_model_info{version=~"$version", instance=~"$instance"}'
    return (
        board.with_row(dashboard.Row("Versions"))
        .with_panel(
            state_timeline_panel(
                served, f"max by (version, alias, instance) ({info})", "{{instance}}: version {{version}}, {{alias}}"
            )
        )
        .with_panel(stat_panel(age, 'max(version:housing_model:age_seconds{version=~"$version"})'))
        .with_panel(stat_panel(promised, f"max(housing_model_validation_rmse and on (instance, version) {info} == 1)"))
        .with_panel(stat_panel(refused, "sum(housing_version_rejected)"))
    )


def _live_error(board: dashboard.Dashboard) -> dashboard.Dashboard:
    ratio = PanelSpec(
        "RMSE now, times that when promoted",
        "short",
        "By feedback of a day; 1 is as good as promised.",
        12,
        ALERTS["HousingLiveError"],
    )
    error = PanelSpec("Error by feedback", "short", "RMSE and mean absolute error of a day, in the target's unit.", 12)
    told = PanelSpec(
        "True values that came", "short", "Matched with a prediction within a day, by version; unmatched; sent again.", 8
    )
    coverage = PanelSpec(
        "Intervals that hold the truth", "percentunit", "Share of a day; compare with the coverage that callers asked for.", 8
    )
    width = PanelSpec("Width of intervals", "short", "Mean of an hour, in the target's unit.", 8)
    of_version = '{version=~"$version"}'
    return (
        board.with_row(dashboard.Row("Is it still good?"))
        .with_panel(timeseries_panel(ratio, {"version {{version}}": f"{LIVE_RMSE_RATIO}{of_version}"}))
        .with_panel(
            timeseries_panel(
                error,
                {
                    "RMSE of {{version}}": f"version:housing_live_rmse:24h{of_version}",
                    "mean absolute of {{version}}": f"version:housing_live_mae:24h{of_version}",
                },
            )
        )
        .with_panel(
            timeseries_panel(
                told,
                {
                    "version {{version}}": f"version:housing_feedback:increase24h{of_version}",
                    "unmatched": "sum(increase(housing_feedback_unmatched_total[24h]))",
                    "sent again": "sum(increase(housing_feedback_duplicates_total[24h]))",
                },
            )
        )
        .with_panel(timeseries_panel(coverage, {"version {{version}}": f"version:housing_live_coverage:24h{of_version}"}))
        .with_panel(timeseries_panel(width, {"version {{version}}": f"version:housing_interval_width:mean1h{of_version}"}))
    )


def _predictions(board: dashboard.Dashboard) -> dashboard.Dashboard:
    bins = PanelSpec(
        "Predictions now, and for training rows", "percentunit", "Share in each tenth of the training rows' predictions.", 12
    )
    psi = PanelSpec(
        "How far predictions have moved", "short", "Population stability index.", 12, ALERTS["HousingPredictionDrift"]
    )
    now = 'avg by (bin) (version_bin:housing_prediction:share{version=~"$version", window=~"$window"})'
    training = 'avg by (bin) (housing_prediction_bin_share{version=~"$version"})'
    moved = 'version:housing_prediction:psi{version=~"$version", window=~"$window"}'
    return (
        board.with_row(dashboard.Row("Predictions"))
        .with_panel(distribution_panel(bins, now, training))
        .with_panel(timeseries_panel(psi, {"version {{version}}, {{window}}": moved}))
        .with_variable(_window_variable())
    )


def _drift() -> dashboard.Dashboard:
    board = _dashboard("Drift", "Has the world moved away from the training rows?")
    return _columns(_overview(board)).with_variable(_window_variable()).with_variable(_column_variable())


def _overview(board: dashboard.Dashboard) -> dashboard.Dashboard:
    worst = PanelSpec("Column that moved most", "short", "Population stability index.", 8, ALERTS["HousingColumnDrift"], 4)
    predictions = PanelSpec("Predictions", "short", "Population stability index.", 8, ALERTS["HousingPredictionDrift"], 4)
    rows = PanelSpec(
        "Rows in the window", "short", "With fewer than 500 chance alone moves the index, and no alert is raised.", 8, None, 4
    )
    of_window = '{version=~"$version", window=~"$window"}'
    columns = 'version_column:housing_column:psi{version=~"$version", column=~"$column", window=~"$window"}'
    heated = PanelSpec(
        "Each column over time",
        "short",
        "Population stability index; red from where the alert is raised.",
        24,
        ALERTS["HousingColumnDrift"],
    )
    return (
        board.with_row(dashboard.Row("How far from the training rows?"))
        .with_panel(stat_panel(worst, f"max({columns})"))
        .with_panel(stat_panel(predictions, f"max(version:housing_prediction:psi{of_window})"))
        .with_panel(stat_panel(rows, f"sum(version:housing_rows:increase{of_window})"))
        .with_panel(status_history_panel(heated, columns, "{{column}}, version {{version}}"))
    )


def _columns(board: dashboard.Dashboard) -> dashboard.Dashboard:
    beyond = PanelSpec(
        "Out of the training rows' range", "percentunit", "Share of an hour's rows: allowed by the schema, but never seen.", 24
    )
    bins = PanelSpec(
        "$column now, and in the training rows", "percentunit", "Share in each bin: tenths of the training rows, or levels.", 8
    )
    now = 'avg by (bin) (version_column_bin:housing_column:share{version=~"$version", column=~"$column", window=~"$window"})'
    training = 'avg by (bin) (housing_column_bin_share{version=~"$version", column=~"$column"})'
    outside = 'version_column:housing_out_of_range:ratio1h{version=~"$version", column=~"$column"}'
    return (
        board.with_row(dashboard.Row("Each column"))
        .with_panel(timeseries_panel(beyond, {"{{column}}, version {{version}}": outside}))
        .with_panel(distribution_panel(bins, now, training).repeat("column").repeat_direction("h"))
    )


def _dashboard(title: str, description: str) -> dashboard.Dashboard:
    others = dashboard.DashboardLink("Housing").type(DashboardLinkType.DASHBOARDS).tags(["housing"])
    return (
        dashboard.Dashboard(f"Housing: {title}")
        .uid(f"housing-{title.lower()}")
        .description(description)
        .tags(["housing"])
        .time("now-6h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(others.include_vars(True).keep_time(True))
        .with_variable(_label_variable("version", "housing_model_info"))
        .with_variable(_label_variable("instance", 'up{job="housing"}'))
        .readonly()
    )


def _label_variable(name: str, metric: str) -> dashboard.QueryVariable:
    variable = dashboard.QueryVariable(name).label(name).query(f"label_values({metric}, {name})").datasource(SOURCE)
    variable = variable.multi(True).include_all(True).all_value(".*").sort(VariableSort.ALPHABETICAL_ASC)
    return variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).current(VariableOption(True, "All", "$__all"))


def _column_variable() -> dashboard.QueryVariable:
    return _label_variable("column", "housing_column_bin_share").all_value("")  # panels repeat for each


def _window_variable() -> dashboard.CustomVariable:
    hour = VariableOption(True, "1h", "1h")
    return (
        dashboard.CustomVariable("window")
        .label("window")
        .values("1h,24h")
        .options([hour, VariableOption(False, "24h", "24h")])
        .current(hour)
    )
