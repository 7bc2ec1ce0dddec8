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
from grafana.panels import SOURCE, Said, against_training, heat, lines, number, spans

ALERT = alerts.read()
SLOW = 'max(route:housing_request_seconds:p99{route=~"/predict|/invocations"})'
LATE = (
    'sum by (le) (rate(housing_request_seconds_bucket{route=~"/predict|/invocations", instance=~"$instance"}[$__rate_interval]))'
)
LIVE = "version:housing_live_rmse:ratio_to_promoted"


def every() -> dict[str, dashboard.Dashboard]:
    """Give all dashboards by the name of their file."""
    return {"service": _service(), "model": _model(), "drift": _drift()}


def _service() -> dashboard.Dashboard:
    board = _dashboard("Service", "Is it healthy? Traffic, errors, latency, saturation.")
    return _saturation(_latency(_traffic(_health(board))))


def _health(board: dashboard.Dashboard) -> dashboard.Dashboard:
    answer = Said("Servers that answer", "short", "Targets that Prometheus reaches.", 4, ALERT["HousingDown"], 4)
    ready = Said("Servers with a model", "short", "A server without a model answers /predict with 503.", 4, None, 4)
    asked = Said("Requests", "reqps", "Requests a second to all routes.", 4, None, 4)
    failed = Said("Failed", "percentunit", "Share of answers with 5xx: our fault.", 4, ALERT["HousingErrors"], 4)
    slow = Said("Slowest in a hundred", "s", "99th percentile of /predict and /invocations.", 4, ALERT["HousingSlow"], 4)
    raised = Said("Alerts", "short", "Alerts that are raised now.", 4, None, 4)
    return (
        board.with_row(dashboard.Row("Now"))
        .with_panel(number(answer, 'sum(up{job="housing", instance=~"$instance"})'))
        .with_panel(number(ready, 'sum(housing_ready{instance=~"$instance"})'))
        .with_panel(number(asked, 'sum(rate(housing_request_seconds_count{instance=~"$instance"}[$__rate_interval]))'))
        .with_panel(number(failed, "housing:errors:ratio5m"))
        .with_panel(number(slow, SLOW))
        .with_panel(number(raised, 'count(ALERTS{alertstate="firing", alertname=~"Housing.+"}) or vector(0)'))
    )


def _traffic(board: dashboard.Dashboard) -> dashboard.Dashboard:
    requests = Said("Requests by route and status", "reqps", "What callers ask for, and what they are answered.", 12)
    rows = Said("Rows by version", "rowsps", "Rows predicted a second; a promotion moves them to the next version.", 12)
    ours = Said("Share that fails: our fault", "percentunit", "Answers with 5xx.", 6, ALERT["HousingErrors"])
    theirs = Said("Share that is refused: the caller's", "percentunit", "Answers with 4xx.", 6)
    refused = Said("Refused values", "cps", "What the check of rows refuses, by column and reason.", 6)
    ready = Said("Readiness", "short", "1 where a server has a model in use.", 6, ALERT["HousingNotReady"])
    by_route = 'sum by (route, status) (rate(housing_request_seconds_count{instance=~"$instance"}[$__rate_interval])) > 0'
    by_version = 'sum by (version) (rate(housing_rows_total{version=~"$version", instance=~"$instance"}[$__rate_interval]))'
    by_reason = 'sum by (column, reason) (rate(housing_rejected_values_total{instance=~"$instance"}[$__rate_interval])) > 0'
    callers = 'sum(status:housing_requests:rate5m{status=~"4.."}) / (sum(status:housing_requests:rate5m) > 0)'
    return (
        board.with_row(dashboard.Row("Traffic and errors"))
        .with_panel(lines(requests, {"{{route}} {{status}}": by_route}, stacked=True))
        .with_panel(lines(rows, {"version {{version}}": by_version}, stacked=True))
        .with_panel(lines(ours, {"5xx": "housing:errors:ratio5m"}))
        .with_panel(lines(theirs, {"4xx": callers}))
        .with_panel(lines(refused, {"{{column}} {{reason}}": by_reason}))
        .with_panel(lines(ready, {"{{instance}}": 'min by (instance) (housing_ready{instance=~"$instance"})'}))
    )


def _latency(board: dashboard.Dashboard) -> dashboard.Dashboard:
    predict = Said(
        "How long callers wait for predictions", "s", "Of a hundred requests 50, 95, 99 are faster.", 12, ALERT["HousingSlow"]
    )
    routes = Said("Slowest in a hundred by route", "s", "99th percentile of every route, over 5 minutes.", 6)
    stages = Said("Where the time of a prediction goes", "s", "Mean of each part of a request, one on top of the other.", 6)
    percentiles = {f"{share:.0%}": f"histogram_quantile({share}, {LATE})" for share in (0.5, 0.95, 0.99)}
    return (
        board.with_row(dashboard.Row("Latency"))
        .with_panel(lines(predict, percentiles))
        .with_panel(lines(routes, {"{{route}}": "route:housing_request_seconds:p99"}))
        .with_panel(lines(stages, {"{{stage}}": "stage:housing_stage_seconds:mean5m"}, stacked=True))
    )


def _saturation(board: dashboard.Dashboard) -> dashboard.Dashboard:
    busy = Said("Requests at the same time", "short", "Mean number in work; up to workers x threads can be.", 8)
    dropped = Said(
        "Answers that are not logged", "short", "Dropped from the prediction log in 15 minutes.", 8, ALERT["HousingLogDropped"]
    )
    scrape = Said("Time of a scrape", "s", "How long Prometheus waits for /metrics.", 8)
    return (
        board.with_row(dashboard.Row("Saturation"))
        .with_panel(lines(busy, {"{{instance}}": _by_instance("rate(housing_request_seconds_sum", "[$__rate_interval])")}))
        .with_panel(lines(dropped, {"{{instance}}": _by_instance("increase(housing_log_dropped_total", "[15m])")}))
        .with_panel(lines(scrape, {"{{instance}}": 'scrape_duration_seconds{job="housing", instance=~"$instance"}'}))
    )


def _by_instance(before: str, after: str) -> str:
    return f'sum by (instance) ({before}{{instance=~"$instance"}}{after})'


def _model() -> dashboard.Dashboard:
    board = _dashboard("Model", "Which version answers, and is it still good?")
    return _predictions(_live_error(_versions(board)))


def _versions(board: dashboard.Dashboard) -> dashboard.Dashboard:
    served = Said("Version in use", "short", "Which version each server uses, with the alias it follows.", 12, None, 6)
    age = Said("Age", "s", "Since the model was made.", 4, ALERT["HousingModelStale"], 6)
    promised = Said("RMSE when promoted", "short", "Of its validation rows, in the target's unit.", 4, None, 6)
    refused = Said(
        "Version refused",
        "short",
        "Servers for which the version at the alias could not be had or proven.",
        4,
        ALERT["HousingModelRejected"],
        6,
    )
    info = 'housing_model_info{version=~"$version", instance=~"$instance"}'
    return (
        board.with_row(dashboard.Row("Versions"))
        .with_panel(spans(served, f"max by (version, alias, instance) ({info})", "{{instance}}: version {{version}}, {{alias}}"))
        .with_panel(number(age, 'max(version:housing_model:age_seconds{version=~"$version"})'))
        .with_panel(number(promised, f"max(housing_model_validation_rmse and on (instance, version) {info} == 1)"))
        .with_panel(number(refused, "sum(housing_version_rejected)"))
    )


def _live_error(board: dashboard.Dashboard) -> dashboard.Dashboard:
    ratio = Said(
        "RMSE now, times that when promoted",
        "short",
        "By feedback of a day; 1 is as good as promised.",
        12,
        ALERT["HousingLiveError"],
    )
    error = Said("Error by feedback", "short", "RMSE and mean absolute error of a day, in the target's unit.", 12)
    told = Said("True values that came", "short", "Matched with a prediction within a day, by version; unmatched; sent again.", 8)
    coverage = Said(
        "Intervals that hold the truth", "percentunit", "Share of a day; compare with the coverage that callers asked for.", 8
    )
    width = Said("Width of intervals", "short", "Mean of an hour, in the target's unit.", 8)
    of_version = '{version=~"$version"}'
    return (
        board.with_row(dashboard.Row("Is it still good?"))
        .with_panel(lines(ratio, {"version {{version}}": f"{LIVE}{of_version}"}))
        .with_panel(
            lines(
                error,
                {
                    "RMSE of {{version}}": f"version:housing_live_rmse:24h{of_version}",
                    "mean absolute of {{version}}": f"version:housing_live_mae:24h{of_version}",
                },
            )
        )
        .with_panel(
            lines(
                told,
                {
                    "version {{version}}": f"version:housing_feedback:increase24h{of_version}",
                    "unmatched": "sum(increase(housing_feedback_unmatched_total[24h]))",
                    "sent again": "sum(increase(housing_feedback_duplicates_total[24h]))",
                },
            )
        )
        .with_panel(lines(coverage, {"version {{version}}": f"version:housing_live_coverage:24h{of_version}"}))
        .with_panel(lines(width, {"version {{version}}": f"version:housing_interval_width:mean1h{of_version}"}))
    )


def _predictions(board: dashboard.Dashboard) -> dashboard.Dashboard:
    bins = Said(
        "Predictions now, and for training rows", "percentunit", "Share in each tenth of the training rows' predictions.", 12
    )
    psi = Said("How far predictions have moved", "short", "Population stability index.", 12, ALERT["HousingPredictionDrift"])
    now = 'avg by (bin) (version_bin:housing_prediction:share{version=~"$version", window=~"$window"})'
    training = 'avg by (bin) (housing_prediction_bin_share{version=~"$version"})'
    moved = 'version:housing_prediction:psi{version=~"$version", window=~"$window"}'
    return (
        board.with_row(dashboard.Row("Predictions"))
        .with_panel(against_training(bins, now, training))
        .with_panel(lines(psi, {"version {{version}}, {{window}}": moved}))
        .with_variable(_window())
    )


def _drift() -> dashboard.Dashboard:
    board = _dashboard("Drift", "Has the world moved away from the training rows?")
    return _columns(_overview(board)).with_variable(_window()).with_variable(_column())


def _overview(board: dashboard.Dashboard) -> dashboard.Dashboard:
    worst = Said("Column that moved most", "short", "Population stability index.", 8, ALERT["HousingColumnDrift"], 4)
    predictions = Said("Predictions", "short", "Population stability index.", 8, ALERT["HousingPredictionDrift"], 4)
    rows = Said(
        "Rows in the window", "short", "With fewer than 500 chance alone moves the index, and no alert is raised.", 8, None, 4
    )
    of_window = '{version=~"$version", window=~"$window"}'
    columns = 'version_column:housing_column:psi{version=~"$version", column=~"$column", window=~"$window"}'
    heated = Said(
        "Each column over time",
        "short",
        "Population stability index; red from where the alert is raised.",
        24,
        ALERT["HousingColumnDrift"],
    )
    return (
        board.with_row(dashboard.Row("How far from the training rows?"))
        .with_panel(number(worst, f"max({columns})"))
        .with_panel(number(predictions, f"max(version:housing_prediction:psi{of_window})"))
        .with_panel(number(rows, f"sum(version:housing_rows:increase{of_window})"))
        .with_panel(heat(heated, columns, "{{column}}, version {{version}}"))
    )


def _columns(board: dashboard.Dashboard) -> dashboard.Dashboard:
    beyond = Said(
        "Out of the training rows' range", "percentunit", "Share of an hour's rows: allowed by the schema, but never seen.", 24
    )
    bins = Said(
        "$column now, and in the training rows", "percentunit", "Share in each bin: tenths of the training rows, or levels.", 8
    )
    now = 'avg by (bin) (version_column_bin:housing_column:share{version=~"$version", column=~"$column", window=~"$window"})'
    training = 'avg by (bin) (housing_column_bin_share{version=~"$version", column=~"$column"})'
    outside = 'version_column:housing_out_of_range:ratio1h{version=~"$version", column=~"$column"}'
    return (
        board.with_row(dashboard.Row("Each column"))
        .with_panel(lines(beyond, {"{{column}}, version {{version}}": outside}))
        .with_panel(against_training(bins, now, training).repeat("column").repeat_direction("h"))
    )


def _dashboard(title: str, asks: str) -> dashboard.Dashboard:
    others = dashboard.DashboardLink("Housing").type(DashboardLinkType.DASHBOARDS).tags(["housing"])
    return (
        dashboard.Dashboard(f"Housing: {title}")
        .uid(f"housing-{title.lower()}")
        .description(asks)
        .tags(["housing"])
        .time("now-6h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(others.include_vars(True).keep_time(True))
        .with_variable(_labels("version", "housing_model_info"))
        .with_variable(_labels("instance", 'up{job="housing"}'))
        .readonly()
    )


def _labels(name: str, metric: str) -> dashboard.QueryVariable:
    variable = dashboard.QueryVariable(name).label(name).query(f"label_values({metric}, {name})").datasource(SOURCE)
    variable = variable.multi(True).include_all(True).all_value(".*").sort(VariableSort.ALPHABETICAL_ASC)
    return variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).current(VariableOption(True, "All", "$__all"))


def _column() -> dashboard.QueryVariable:
    return _labels("column", "housing_column_bin_share").all_value("")  # panels repeat for each


def _window() -> dashboard.CustomVariable:
    hour = VariableOption(True, "1h", "1h")
    return (
        dashboard.CustomVariable("window")
        .label("window")
        .values("1h,24h")
        .options([hour, VariableOption(False, "24h", "24h")])
        .current(hour)
    )
