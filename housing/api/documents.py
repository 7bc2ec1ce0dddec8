"""Documents of output=json: the type of each command's result."""

from dataclasses import dataclass
from typing import Any

from housing.command_line.console import WrittenFile
from housing.command_line.json_schema import document_schema
from housing.data.batch_prediction import Predictions
from housing.data.download import FetchedTable
from housing.data.preparation import PreparedTable
from housing.description.description import DescribedFile
from housing.ingestion.ingestion import IngestedRows
from housing.monitoring_report.summary import MonitoringReport
from housing.operations.cleaning import Cleaned
from housing.operations.health_checks import HealthReport
from housing.operations.retraining_summary import RetrainingSummary
from housing.operations.training_metrics import ExportedMetrics
from housing.promotion.decision import Decision
from housing.promotion.history import History
from housing.reports.card import WrittenCard
from housing.runs.comparison import Reproduction
from housing.runs.outcome import TrainingResult
from housing.serve import StartedServer
from housing.tracking.aliases import VersionAtAlias
from housing.traffic.canary_judge import Judgement
from housing.traffic.result import ReplayDocument


@dataclass(frozen=True)
class ServedTools:
    """The tools that housing.mcp serves to an agent.

    Attributes
    ----------
    rights
        What the agent may do besides reading.
    """

    rights: list[str]
    tools: list[str]


RESULTS: dict[str, type] = {
    "alias": VersionAtAlias,
    "approve": Decision,
    "canary": Judgement,
    "card": WrittenCard,
    "clean": Cleaned,
    "describe": DescribedFile,
    "doctor": HealthReport,
    "export_metrics": ExportedMetrics,
    "fetch": FetchedTable,
    "history": History,
    "ingest": IngestedRows,
    "mcp": ServedTools,
    "monitor": MonitoringReport,
    "predict": Predictions,
    "prepare": PreparedTable,
    "promote": Decision,
    "replay": ReplayDocument,
    "report": WrittenFile,
    "reproduce": Reproduction,
    "retrain": RetrainingSummary,
    "rollback": Decision,
    "serve": StartedServer,
    "train": TrainingResult,
}


def schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON schema of each command's document."""
    return {command: document_schema(command, result) for command, result in RESULTS.items()}
