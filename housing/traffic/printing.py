"""The printed summary of a replay."""

from housing.command_line.console import create_console
from housing.traffic.result import QUANTILES, ReplayResult

MAX_REASONS = 5
MAX_COLUMNS = 3


def show_result(result: ReplayResult) -> None:
    """Print what the candidate did with the log."""
    console = create_console()
    for line in summary_lines(result):
        console.print(line, soft_wrap=True)


def summary_lines(result: ReplayResult) -> list[str]:
    """Return the summary, one statement in each line."""
    log, candidate = result.log, result.candidate
    lines = [
        f"{result.name}: {result.rows:,} rows of {log.entries:,} requests {result.period}, {candidate.predicted:,} predicted"
    ]
    if log.malformed:
        lines.append(f"skipped      {log.malformed:,} damaged lines of the log")
    if candidate.refused:
        lines.append(
            f"refused      {candidate.refused:,} rows ({candidate.refused / result.rows:.2%}): a server would answer 422"
        )
        reasons = candidate.reasons.most_common()
        lines += [f"             {rows:,} rows  {column}: {reason}" for (column, reason), rows in reasons[:MAX_REASONS]]
        if len(reasons) > MAX_REASONS:
            lines.append(f"             and {len(reasons) - MAX_REASONS} more reasons, on the page")
    if candidate.predicted:
        lines += _difference_lines(result)
    lines.append(f"errors       {result.errors.sentence}")
    return lines


def _difference_lines(result: ReplayResult) -> list[str]:
    overall, column = result.differences.overall, result.differences.by_column()
    quantiles = zip(QUANTILES, result.differences.quantiles(QUANTILES), strict=True)
    shares = "   ".join(f"{level:.0%} below {value:.4g}" for level, value in quantiles)
    named = ", ".join(f"{item.name} {item.explained:.0%}" for item in column[:MAX_COLUMNS] if item.explained > 0)
    alone = "" if result.alone_us is None else f"; a row alone {result.alone_us:.0f} µs"
    difference = f"mean {overall.mean:+.4g}   mean absolute {overall.mean_absolute:.4g}   RMS {overall.rms:.4g}"
    cost = f"{result.validation_us:.1f} µs validation, {result.prediction_us:.1f} µs prediction of a row in a batch"
    return [
        f"difference   {difference}   largest {result.differences.largest:.4g}",
        f"             {shares}",
        *([f"explained by {named}"] if named else []),
        f"cost         {cost}{alone} (processor time)",
    ]
