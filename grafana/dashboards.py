"""Panels and queries of the dashboards. scripts/dashboards writes the files for Grafana.

Thresholds come from prometheus/alerts.yml. Panels follow the variables `version` and `instance` if their series have these
labels. Series of the whole service have no `instance`.
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
P99_LATENCY = 'max(route:housing_request_seconds:p99{route=~"(/models/.*)?/(predict|invocations)|/v2/.*/infer"})'
LATENCY_BUCKETS = (
    'sum by (le) (rate(housing_request_seconds_bucket{route=~"(/models/.*)?/(predict|invocations)|/v2/.*/infer",'
    ' instance=~"$instance"}[$__rate_interval]))'
)
FINISHED, FAILED, RMSE = 'status="FINISHED"', 'status="FAILED"', 'metric="rmse"'  # selectors
LIVE_RMSE_RATIO = "version:housing_live_rmse:ratio_to_promoted"
ESTIMATED_RMSE_RATIO = "version:housing_estimated_rmse:ratio_to_held_out"


def all_dashboards() -> dict[str, dashboard.Dashboard]:
    """Return all dashboards by the name of their file."""
    boards = {"service": _service(), "model": _model(), "drift": _drift()}
    return boards | {"training": _training(), "candidate": _candidate()}


def _service() -> dashboard.Dashboard:
    board = _dashboard("Service", "Health of the service: traffic, errors, latency, saturation.")
    return _saturation(_latency(_traffic(_health(board))))


def _health(board: dashboard.Dashboard) -> dashboard.Dashboard:
    up = PanelSpec("Servers up", "short", "Targets that Prometheus can scrape.", 4, ALERTS["HousingDown"], 4)
    ready = PanelSpec("Servers ready", "short", "Servers with a model; without one, /predict answers 503.", 4, None, 4)
    requests = PanelSpec("Requests", "reqps", "Requests per second, all routes.", 4, None, 4)
    errors = PanelSpec("Errors", "percentunit", "Share of responses with status 5xx.", 4, ALERTS["HousingErrors"], 4)
    latency = PanelSpec("Latency p99", "s", "99th percentile of /predict and /invocations.", 4, ALERTS["HousingSlow"], 4)
    firing = PanelSpec("Alerts", "short", "Alerts that are firing.", 4, None, 4)
    return (
        board.with_row(dashboard.Row("Now"))
        .with_panel(stat_panel(up, 'sum(up{job="housing", instance=~"$instance"})'))
        .with_panel(stat_panel(ready, 'sum(housing_ready{instance=~"$instance"})'))
        .with_panel(stat_panel(requests, 'sum(rate(housing_request_seconds_count{instance=~"$instance"}[$__rate_interval]))'))
        .with_panel(stat_panel(errors, "housing:errors:ratio5m"))
        .with_panel(stat_panel(latency, P99_LATENCY))
        .with_panel(stat_panel(firing, 'count(ALERTS{alertstate="firing", alertname=~"Housing.+"}) or vector(0)'))
    )


def _traffic(board: dashboard.Dashboard) -> dashboard.Dashboard:
    requests = PanelSpec("Requests by route and status", "reqps", "Requests per second.", 12)
    rows = PanelSpec("Rows by version", "rowsps", "Rows predicted per second. A promotion moves traffic to the new version.", 12)
    server_errors = PanelSpec("Server errors", "percentunit", "Share of responses with status 5xx.", 6, ALERTS["HousingErrors"])
    client_errors = PanelSpec("Client errors", "percentunit", "Share of responses with status 4xx.", 6)
    rejected = PanelSpec("Rejected values", "cps", "Values that fail validation, by column and reason.", 6)
    ready = PanelSpec("Readiness", "short", "1 if a server has a model.", 6, ALERTS["HousingNotReady"])
    by_route = 'sum by (route, status) (rate(housing_request_seconds_count{instance=~"$instance"}[$__rate_interval])) > 0'
    by_version = 'sum by (version) (rate(housing_rows_total{version=~"$version", instance=~"$instance"}[$__rate_interval]))'
    by_reason = 'sum by (column, reason) (rate(housing_rejected_values_total{instance=~"$instance"}[$__rate_interval])) > 0'
    callers = 'sum(status:housing_requests:rate5m{status=~"4.."}) / (sum(status:housing_requests:rate5m) > 0)'
    return (
        board.with_row(dashboard.Row("Traffic and errors"))
        .with_panel(timeseries_panel(requests, {"{{route}} {{status}}": by_route}, stacked=True))
        .with_panel(timeseries_panel(rows, {"version {{version}}": by_version}, stacked=True))
        .with_panel(timeseries_panel(server_errors, {"5xx": "housing:errors:ratio5m"}))
        .with_panel(timeseries_panel(client_errors, {"4xx": callers}))
        .with_panel(timeseries_panel(rejected, {"{{column}} {{reason}}": by_reason}))
        .with_panel(timeseries_panel(ready, {"{{instance}}": 'min by (instance) (housing_ready{instance=~"$instance"})'}))
    )


def _latency(board: dashboard.Dashboard) -> dashboard.Dashboard:
    predict = PanelSpec(
        "Prediction latency", "s", "50th, 95th and 99th percentile of /predict and /invocations.", 12, ALERTS["HousingSlow"]
    )
    routes = PanelSpec("Latency p99 by route", "s", "99th percentile of each route over 5 minutes.", 6)
    stages = PanelSpec("Time by stage", "s", "Mean time of each stage of a prediction request, stacked.", 6)
    percentiles = {f"{share:.0%}": f"histogram_quantile({share}, {LATENCY_BUCKETS})" for share in (0.5, 0.95, 0.99)}
    return (
        board.with_row(dashboard.Row("Latency"))
        .with_panel(timeseries_panel(predict, percentiles))
        .with_panel(timeseries_panel(routes, {"{{route}}": "route:housing_request_seconds:p99"}))
        .with_panel(timeseries_panel(stages, {"{{stage}}": "stage:housing_stage_seconds:mean5m"}, stacked=True))
    )


def _saturation(board: dashboard.Dashboard) -> dashboard.Dashboard:
    busy = PanelSpec("Concurrent requests", "short", "Mean number of requests in progress; at most workers x threads.", 8)
    dropped = PanelSpec(
        "Dropped log entries",
        "short",
        "Predictions missing from the prediction log, over 15 minutes.",
        8,
        ALERTS["HousingLogDropped"],
    )
    malformed = PanelSpec(
        "Malformed lines", "short", "Skipped lines of feedback, over one hour.", 12, ALERTS["HousingFeedbackMalformed"]
    )
    damaged = PanelSpec(
        "Damaged databases", "short", "Databases of feedback set aside.", 12, ALERTS["HousingFeedbackDatabaseDamaged"]
    )
    scrape = PanelSpec("Scrape duration", "s", "Time that Prometheus waits for /metrics.", 8)
    return (
        board.with_row(dashboard.Row("Saturation"))
        .with_panel(
            timeseries_panel(busy, {"{{instance}}": _sum_by_instance("rate(housing_request_seconds_sum", "[$__rate_interval])")})
        )
        .with_panel(timeseries_panel(dropped, {"{{instance}}": _sum_by_instance("increase(housing_log_dropped_total", "[15m])")}))
        .with_panel(timeseries_panel(scrape, {"{{instance}}": 'scrape_duration_seconds{job="housing", instance=~"$instance"}'}))
        .with_panel(
            timeseries_panel(
                malformed, {"{{instance}}": _sum_by_instance("increase(housing_feedback_malformed_lines_total", "[1h])")}
            )
        )
        .with_panel(timeseries_panel(damaged, {"{{instance}}": _sum_by_instance("housing_feedback_damaged_databases_total", "")}))
    )


def _sum_by_instance(before: str, after: str) -> str:
    return f'sum by (instance) ({before}{{instance=~"$instance"}}{after})'


def _model() -> dashboard.Dashboard:
    board = _dashboard("Model", "The served version and its live error.")
    return _predictions(_estimated_error(_live_error(_versions(board))))


def _versions(board: dashboard.Dashboard) -> dashboard.Dashboard:
    served = PanelSpec(
        "Served version", "short", "The version that each server uses, and the alias that it follows.", 12, None, 6
    )
    age = PanelSpec("Model age", "s", "Time since the model was trained.", 4, ALERTS["HousingModelStale"], 6)
    validation = PanelSpec("Validation RMSE", "short", "RMSE on validation rows, in the target's unit.", 4, None, 6)
    rejected = PanelSpec(
        "Version rejected",
        "short",
        "Servers that could not download or verify the version at the alias.",
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
        .with_panel(stat_panel(validation, f"max(housing_model_validation_rmse and on (instance, name, version) {info} == 1)"))
        .with_panel(stat_panel(rejected, "sum(housing_version_rejected)"))
    )


def _live_error(board: dashboard.Dashboard) -> dashboard.Dashboard:
    ratio = PanelSpec(
        "Live RMSE / validation RMSE",
        "short",
        "Live RMSE over one day of feedback, divided by the validation RMSE. 1 means as good as at validation.",
        12,
        ALERTS["HousingLiveError"],
    )
    error = PanelSpec("Live error", "short", "RMSE and mean absolute error over one day of feedback, in the target's unit.", 12)
    labels = PanelSpec("Labels received", "short", "Labels of one day: by version; unmatched; duplicates; malformed lines.", 8)
    coverage = PanelSpec(
        "Interval coverage",
        "percentunit",
        "Share of labels inside their interval over one day. Compare with the requested coverage.",
        8,
    )
    width = PanelSpec("Interval width", "short", "Mean over one hour, in the target's unit.", 8)
    of_version = '{version=~"$version"}'
    return (
        board.with_row(dashboard.Row("Live error"))
        .with_panel(timeseries_panel(ratio, {"version {{version}}": f"{LIVE_RMSE_RATIO}{of_version}"}))
        .with_panel(
            timeseries_panel(
                error,
                {
                    "RMSE, version {{version}}": f"version:housing_live_rmse:24h{of_version}",
                    "MAE, version {{version}}": f"version:housing_live_mae:24h{of_version}",
                },
            )
        )
        .with_panel(
            timeseries_panel(
                labels,
                {
                    "version {{version}}": f"version:housing_feedback:increase24h{of_version}",
                    "unmatched": "sum(increase(housing_feedback_unmatched_total[24h]))",
                    "duplicates": "sum(increase(housing_feedback_duplicates_total[24h]))",
                    "malformed lines": "sum(increase(housing_feedback_malformed_lines_total[24h]))",
                },
            )
        )
        .with_panel(timeseries_panel(coverage, {"version {{version}}": f"version:housing_live_coverage:24h{of_version}"}))
        .with_panel(timeseries_panel(width, {"version {{version}}": f"version:housing_interval_width:mean1h{of_version}"}))
    )


def _estimated_error(board: dashboard.Dashboard) -> dashboard.Dashboard:
    ratio = PanelSpec(
        "Estimated RMSE / held-out RMSE",
        "short",
        "Estimated RMSE of the latest window, divided by the RMSE of held-out rows; and the same with an estimate that is three"
        " standard errors lower, by which the alert fires.",
        12,
        ALERTS["HousingEstimatedError"],
    )
    error = PanelSpec(
        "Estimated error",
        "short",
        "RMSE and mean absolute error of the latest window, in the target's unit. Estimates: true values are not known yet.",
        12,
    )
    doubt = PanelSpec(
        "Doubt of estimated RMSE",
        "percentunit",
        "Standard error of the estimate, divided by it. It is too narrow on shifted rows.",
        12,
    )
    correction = PanelSpec(
        "Correction by feedback", "short", "Ratio of realised to estimated RMSE of rows with feedback; 1 without feedback.", 12
    )
    of_version, of_instance = '{version=~"$version"}', '{version=~"$version", instance=~"$instance"}'
    low = f"{ESTIMATED_RMSE_RATIO}_low{of_version}"
    doubt_now = f"max by (version) (housing_estimated_rmse_standard_error{of_instance} / housing_estimated_rmse{of_instance})"
    return (
        board.with_row(dashboard.Row("Estimated error, from the monitor (serve.monitor)"))
        .with_panel(
            timeseries_panel(
                ratio,
                {
                    "version {{version}}": f"{ESTIMATED_RMSE_RATIO}{of_version}",
                    "version {{version}}, three standard errors lower": low,
                },
            )
        )
        .with_panel(
            timeseries_panel(
                error,
                {
                    "RMSE, version {{version}}": f"max by (version) (housing_estimated_rmse{of_instance})",
                    "MAE, version {{version}}": f"max by (version) (housing_estimated_mae{of_instance})",
                },
            )
        )
        .with_panel(timeseries_panel(doubt, {"version {{version}}": doubt_now}))
        .with_panel(
            timeseries_panel(
                correction, {"version {{version}}": f"max by (version) (housing_estimated_error_correction{of_instance})"}
            )
        )
    )


def _predictions(board: dashboard.Dashboard) -> dashboard.Dashboard:
    bins = PanelSpec(
        "Distribution of predictions",
        "percentunit",
        "Share in each decile of the training predictions: now, and in training.",
        12,
    )
    psi = PanelSpec("Prediction drift", "short", "Population stability index (PSI).", 12, ALERTS["HousingPredictionDrift"])
    now = 'avg by (bin) (version_bin:housing_prediction:share{version=~"$version", window=~"$window"})'
    training = 'avg by (bin) (housing_prediction_bin_share{version=~"$version"})'
    psi_now = 'version:housing_prediction:psi{version=~"$version", window=~"$window"}'
    return (
        board.with_row(dashboard.Row("Predictions"))
        .with_panel(distribution_panel(bins, now, training))
        .with_panel(timeseries_panel(psi, {"version {{version}}, {{window}}": psi_now}))
        .with_variable(_window_variable())
    )


def _drift() -> dashboard.Dashboard:
    board = _dashboard("Drift", "Drift of columns and predictions from the training data.")
    return _columns(_joint_drift(_overview(board))).with_variable(_window_variable()).with_variable(_column_variable())


def _overview(board: dashboard.Dashboard) -> dashboard.Dashboard:
    worst = PanelSpec(
        "Largest column drift",
        "short",
        "Largest population stability index (PSI) of all columns.",
        8,
        ALERTS["HousingColumnDrift"],
        4,
    )
    predictions = PanelSpec(
        "Prediction drift", "short", "Population stability index (PSI).", 8, ALERTS["HousingPredictionDrift"], 4
    )
    rows = PanelSpec(
        "Rows in the window", "short", "With fewer than 500 rows the index is mostly noise, and no alert fires.", 8, None, 4
    )
    of_window = '{version=~"$version", window=~"$window"}'
    columns = 'version_column:housing_column:psi{version=~"$version", column=~"$column", window=~"$window"}'
    by_column = PanelSpec(
        "Column drift over time",
        "short",
        "Population stability index (PSI) by column; red above the alert's threshold.",
        24,
        ALERTS["HousingColumnDrift"],
    )
    return (
        board.with_row(dashboard.Row("Overview"))
        .with_panel(stat_panel(worst, f"max({columns})"))
        .with_panel(stat_panel(predictions, f"max(version:housing_prediction:psi{of_window})"))
        .with_panel(stat_panel(rows, f"sum(version:housing_rows:increase{of_window})"))
        .with_panel(status_history_panel(by_column, columns, "{{column}}, version {{version}}"))
    )


def _joint_drift(board: dashboard.Dashboard) -> dashboard.Dashboard:
    weighted = PanelSpec(
        "Drift that matters",
        "short",
        "Population stability index of each column, times its share in all contributions to predictions.",
        8,
        ALERTS["HousingWeightedDrift"],
    )
    together = PanelSpec(
        "Multivariate drift",
        "short",
        "How far a classifier that tells windows from training rows is above chance, in standard deviations.",
        8,
        ALERTS["HousingMultivariateDrift"],
    )
    columns = PanelSpec(
        "Columns by which windows differ", "short", "By how much the classifier's AUC falls if it does not see a column.", 8
    )
    of_window = '{version=~"$version", column=~"$column", window=~"$window"}'
    z = 'max by (version) (housing_multivariate_drift_z{version=~"$version", instance=~"$instance"})'
    losses = (
        "max by (version, column)"
        ' (housing_multivariate_drift_column_auc{version=~"$version", column=~"$column", instance=~"$instance"})'
    )
    return (
        board.with_row(dashboard.Row("Drift that matters, from the monitor (serve.monitor)"))
        .with_panel(
            timeseries_panel(
                weighted,
                {"{{column}}, version {{version}}": f"version_column:housing_column:weighted_psi{of_window}"},
                ranked=True,
            )
        )
        .with_panel(timeseries_panel(together, {"version {{version}}": z}))
        .with_panel(timeseries_panel(columns, {"{{column}}, version {{version}}": losses}, ranked=True))
    )


def _columns(board: dashboard.Dashboard) -> dashboard.Dashboard:
    out_of_range = PanelSpec(
        "Values out of the training range",
        "percentunit",
        "Share of rows over one hour: valid, but outside the range of the training data.",
        24,
    )
    bins = PanelSpec(
        "Distribution of $column",
        "percentunit",
        "Share in each bin (deciles of the training data, or categories): now, and in training.",
        8,
    )
    now = 'avg by (bin) (version_column_bin:housing_column:share{version=~"$version", column=~"$column", window=~"$window"})'
    training = 'avg by (bin) (housing_column_bin_share{version=~"$version", column=~"$column"})'
    ratio = 'version_column:housing_out_of_range:ratio1h{version=~"$version", column=~"$column"}'
    return (
        board.with_row(dashboard.Row("Columns"))
        .with_panel(timeseries_panel(out_of_range, {"{{column}}, version {{version}}": ratio}, ranked=True))
        .with_panel(distribution_panel(bins, now, training).repeat("column").repeat_direction("h"))
    )


def _training() -> dashboard.Dashboard:
    board = _dashboard(
        "Training", "Runs, durations, failures and the age of what is trained, as housing.export_metrics wrote it."
    )
    return _table_and_aliases(_runs(_training_now(board))).with_variable(_label_variable("table", "housing_training_runs"))


def _training_now(board: dashboard.Dashboard) -> dashboard.Dashboard:
    last = PanelSpec("Age of the last run", "s", "Time since the last finished run.", 4, None, 4)
    retrained = PanelSpec("Age of the last retraining", "s", "Time since housing.retrain last finished.", 4, None, 4)
    pending = PanelSpec(
        "Untrained table",
        "s",
        "Time since the table changed, while no run has finished on it. 0: its present version is trained.",
        4,
        ALERTS["HousingRetrainingOverdue"],
        4,
    )
    best = PanelSpec(
        "Best RMSE", "short", "Lowest validation RMSE on the rows of the newest run, in the target's unit.", 4, None, 4
    )
    failed = PanelSpec("Failed runs", "short", "Runs in MLflow that failed.", 4, None, 4)
    exported = PanelSpec("Age of these numbers", "s", "Time since housing.export_metrics wrote them.", 4, None, 4)
    return (
        board.with_row(dashboard.Row("Now"))
        .with_panel(stat_panel(last, f"time() - max({_of_table('housing_training_last_run_timestamp_seconds', FINISHED)})"))
        .with_panel(stat_panel(retrained, f"time() - max({_of_table('housing_retraining_timestamp_seconds')})"))
        .with_panel(stat_panel(pending, f"max({_of_table('table:housing_table:pending_seconds')})"))
        .with_panel(stat_panel(best, f"min({_of_table('housing_training_best_score', RMSE)})"))
        .with_panel(stat_panel(failed, f"sum({_of_table('housing_training_runs', FAILED)})"))
        .with_panel(stat_panel(exported, f"time() - max({_of_table('housing_metrics_exported_timestamp_seconds')})"))
    )


def _runs(board: dashboard.Dashboard) -> dashboard.Dashboard:
    runs = PanelSpec("Runs by status", "short", "Runs in MLflow. housing.clean removes old ones.", 8)
    failures = PanelSpec("New failures", "short", "Failed runs that were added within one day.", 8)
    seconds = PanelSpec("Duration of runs", "s", "Median, 90th percentile and maximum of the newest finished runs.", 8)
    score = PanelSpec("Best score", "short", "Best validation score on the rows of the newest run.", 12)
    memory = PanelSpec("Peak memory", "bytes", "Largest memory of a process in the newest finished runs.", 12)
    new_failures = f"clamp_min(delta({_of_table('housing_training_runs', FAILED)}[24h]), 0)"
    return (
        board.with_row(dashboard.Row("Runs"))
        .with_panel(timeseries_panel(runs, {"{{table}} {{status}}": _of_table("housing_training_runs")}, stacked=True))
        .with_panel(timeseries_panel(failures, {"{{table}}": new_failures}))
        .with_panel(timeseries_panel(seconds, {"{{table}}, quantile {{quantile}}": _of_table("housing_training_run_seconds")}))
        .with_panel(timeseries_panel(score, {"{{table}} {{metric}}": _of_table("housing_training_best_score")}))
        .with_panel(timeseries_panel(memory, {"{{table}}": _of_table("housing_training_peak_memory_bytes")}))
    )


def _table_and_aliases(board: dashboard.Dashboard) -> dashboard.Dashboard:
    rows = PanelSpec("Rows of the table", "short", "Rows with a target.", 8)
    versions = PanelSpec("Version at each alias", "short", "A step is a promotion or a rollback.", 8)
    ages = PanelSpec("Age of the version at each alias", "s", "Time since its training, and since the alias moved to it.", 8)
    trained, moved = (f"time() - {_of_table(f'housing_alias_{event}_timestamp_seconds')}" for event in ("trained", "moved"))
    return (
        board.with_row(dashboard.Row("Table and aliases"))
        .with_panel(timeseries_panel(rows, {"{{table}}": _of_table("housing_table_rows")}))
        .with_panel(timeseries_panel(versions, {"{{table}} {{alias}}": _of_table("housing_alias_version")}))
        .with_panel(timeseries_panel(ages, {"{{table}} {{alias}} trained": trained, "{{table}} {{alias}} moved": moved}))
    )


def _of_table(metric: str, selector: str = "") -> str:
    selectors = ", ".join(['table=~"$table"', *([selector] if selector else [])])
    return f"{metric}{{{selectors}}}"


def _candidate() -> dashboard.Dashboard:
    board = _dashboard(
        "Candidate", "A candidate beside the served version: the shadow of serve.shadow, and the share of a canary."
    )
    return _candidate_quality(_shadow(board))


def _shadow(board: dashboard.Dashboard) -> dashboard.Dashboard:
    rows = PanelSpec("Rows of the shadow", "short", "Logged rows that the candidate predicted within one day.", 6, None, 4)
    refused = PanelSpec(
        "Refused rows", "percentunit", "Share of logged rows that the candidate's schema refuses, one day.", 6, None, 4
    )
    behind = PanelSpec("Unread log", "bytes", "How far the shadow is behind the prediction log.", 6, None, 4)
    rejected = PanelSpec("Candidate rejected", "short", "1 if the version at the shadow's alias fails verification.", 6, None, 4)
    n_rows, n_refused = (f"sum(increase(housing_shadow_{name}_total[24h]))" for name in ("rows", "refused_rows"))
    return (
        board.with_row(dashboard.Row("Shadow"))
        .with_panel(stat_panel(rows, n_rows))
        .with_panel(stat_panel(refused, f"{n_refused} / ({n_rows} + {n_refused} > 0)"))
        .with_panel(stat_panel(behind, "max(housing_shadow_unread_bytes)"))
        .with_panel(stat_panel(rejected, "max(housing_shadow_version_rejected)"))
    )


def _candidate_quality(board: dashboard.Dashboard) -> dashboard.Dashboard:
    difference = PanelSpec("Difference from the answers", "short", "Over one hour, in the target's unit.", 12)
    error = PanelSpec(
        "RMSE on the same true values", "short", "Over one day, in the target's unit. It says nothing of chance.", 12
    )
    seconds = PanelSpec("Processor time of a row", "s", "The candidate's validation and prediction, over one hour.", 8)
    labels = PanelSpec("True values", "short", "True values of rows that the candidate accepts, over one day.", 8)
    share = PanelSpec("Share of each version", "percentunit", "Share of the answered rows: a canary answers some of them.", 8)
    n_rows, n_labels = _shadow_increase("rows", "1h"), _shadow_increase("labels", "24h")
    absolute, squared = (_shadow_increase(f"{kind}_difference", "1h") for kind in ("absolute", "squared"))
    errors, answer_errors = (_shadow_increase(f"{kind}squared_error", "24h") for kind in ("", "answer_"))
    by_version = "sum by (version) (rate(housing_rows_total[$__rate_interval]))"
    return (
        board.with_row(dashboard.Row("Candidate and answers"))
        .with_panel(
            timeseries_panel(
                difference,
                {
                    "mean absolute, version {{version}}": f"{absolute} / ({n_rows} > 0)",
                    "root mean square, version {{version}}": f"sqrt({squared} / ({n_rows} > 0))",
                },
            )
        )
        .with_panel(
            timeseries_panel(
                error,
                {
                    "candidate, version {{version}}": f"sqrt({errors} / ({n_labels} > 0))",
                    "answers, beside version {{version}}": f"sqrt({answer_errors} / ({n_labels} > 0))",
                },
            )
        )
        .with_panel(
            timeseries_panel(seconds, {"version {{version}}": f"{_shadow_increase('cpu_seconds', '1h')} / ({n_rows} > 0)"})
        )
        .with_panel(timeseries_panel(labels, {"version {{version}}": n_labels}))
        .with_panel(
            timeseries_panel(
                share,
                {"version {{version}}": f"{by_version} / scalar(sum(rate(housing_rows_total[$__rate_interval])) > 0)"},
                stacked=True,
            )
        )
    )


def _shadow_increase(name: str, window: str) -> str:
    return f"sum by (version) (increase(housing_shadow_{name}_total[{window}]))"


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
    return _label_variable("column", "housing_column_bin_share").all_value("")  # a panel repeats for each column


def _window_variable() -> dashboard.CustomVariable:
    hour = VariableOption(True, "1h", "1h")
    return (
        dashboard.CustomVariable("window")
        .label("window")
        .values("1h,24h")
        .options([hour, VariableOption(False, "24h", "24h")])
        .current(hour)
    )
