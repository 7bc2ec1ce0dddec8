"""Drift of a running server: the population stability index (PSI) of the rows that it predicted since its start, by column."""

import math
import urllib.error
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from housing.core.errors import HousingError
from housing.operations.health_checks import http_get

MIN_SHARE = 0.0001  # of a bin, since the logarithm of 0 is undefined; as in prometheus/rules.yml
Key = tuple[str, str, str]  # name of the model, version, column


@dataclass(frozen=True)
class ServedColumn:
    """Drift of a column, or of the predictions.

    Attributes
    ----------
    column
        The name of the column; None for the predictions.
    values
        The number of values since the server started.
    psi
        Above 0.1 it is moderate and above 0.25 large, if there are some hundred values; None without values.
    out_of_range
        Values below the lowest or above the highest training value.
    """

    column: str | None
    values: int
    psi: float | None
    out_of_range: int


@dataclass(frozen=True)
class ServedVersion:
    """Drift of the rows that one version predicted. `name` is "" if the server has a single model."""

    name: str
    version: str
    columns: list[ServedColumn]


@dataclass(frozen=True)
class ServedDrift:
    """Drift by version, against the training rows of that version."""

    url: str
    versions: list[ServedVersion]


def read_served_drift(url: str, key: str, timeout_seconds: float) -> ServedDrift:
    """Read the metrics of a server, and return the drift of each of its versions.

    Raises
    ------
    HousingError
        If the server does not answer, or with another page.
    """
    try:
        text = http_get(f"{url}/metrics", timeout_seconds, key)
    except (OSError, ValueError) as error:
        hint = "Set server_key." if isinstance(error, urllib.error.HTTPError) else "Start it, or set server_url."
        raise HousingError(f"Could not read {url}/metrics: {error}. {hint}") from error
    return ServedDrift(url, list(_versions(text)))


def _versions(text: str) -> Iterator[ServedVersion]:
    """Yield the drift of each version in the text of /metrics."""
    samples = _bins(text)
    columns = defaultdict[tuple[str, str], list[ServedColumn]](list)
    for subject in ("column", "prediction"):
        counts, shares = samples.get(f"housing_{subject}_bin_total", {}), samples.get(f"housing_{subject}_bin_share", {})
        for (name, version, column), reference in shares.items():
            key = (name, version, column)
            out_of_range = sum(samples.get("housing_out_of_range_total", {}).get(key, {}).values()) if column else 0
            drift = _drift(counts.get(key, {}), reference)
            columns[name, version].append(
                ServedColumn(column or None, int(sum(counts.get(key, {}).values())), drift, int(out_of_range))
            )
    for (name, version), drifts in columns.items():
        yield ServedVersion(name, version, drifts)


def _bins(text: str) -> Mapping[str, Mapping[Key, dict[str, float]]]:
    """Return the values of all samples: by metric, then by model, version and column, then by bin."""
    bins: defaultdict[str, defaultdict[Key, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            label = sample.labels.get
            bins[sample.name][label("name", ""), label("version", ""), label("column", "")][label("bin", "")] = sample.value
    return bins


def _drift(counts: Mapping[str, float], shares: Mapping[str, float]) -> float | None:
    """Return the PSI of the counts of a column's bins against the shares of the training rows, or None without a count."""
    total = sum(counts.values())
    if not total:
        return None
    pairs = [(max(counts.get(name, 0) / total, MIN_SHARE), max(share, MIN_SHARE)) for name, share in shares.items()]
    return math.fsum((now - before) * math.log(now / before) for now, before in pairs)
