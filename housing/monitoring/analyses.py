"""The analyses that a monitor runs."""

from housing.monitoring.analysis import Analysis
from housing.monitoring.estimated_error import EstimatedError
from housing.monitoring.multivariate_drift import MultivariateDriftAnalysis
from server.core.settings import Settings


def create_analyses(settings: Settings) -> list[Analysis]:  # pylint: disable=unused-argument
    """Return the analyses of a server."""
    return [EstimatedError(), MultivariateDriftAnalysis()]
