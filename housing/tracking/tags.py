"""Names of tags, artifacts and limits in the store."""

from collections.abc import Mapping

from housing.command_line.next_command import next_command
from housing.core.errors import StoreError

RUN_TYPE, DATA, COLUMNS, SPLIT, MODEL_ID, EVALUATION, CODE, FOLDER, ERROR = (
    f"housing.{name}" for name in ("run_type", "data", "columns", "split", "model_id", "evaluation", "code", "folder", "error")
)
TRANSFORM = "housing.target_transform"  # of a run: what its estimators were fitted on
FITTED_UNTIL = "housing.fitted_until"  # of a run on a split by time: the latest time of its training and validation rows
ENCODING = "housing.encoding"  # of a run that chose the encoding of categories with many levels: the method
MEMBERS = "housing.members"  # of a run that selected its members: their shares of the weighted mean
TEACHER = "housing.teacher"  # of a distilled run: the class of its teacher
ENGINE = "housing.engine"  # of a run that read its table in chunks: stream or dask
SAMPLE = "housing.sample"  # of such a run: the validation rows of its intervals and figures, if these are not all
LOST_WORKERS = "housing.lost_workers"  # of a run whose fit was tried again: the workers that were lost
MISSING_LIBRARIES = "housing.missing_libraries"  # of a search: optional libraries that are not installed
CHALLENGER, EVALUATED = "housing.challenger", "housing.evaluated"  # of a decision
ALIAS, VERDICT, FROM, TO, ACTOR, REASON, FORCED, SERVED = (
    f"housing.{name}" for name in ("alias", "verdict", "from", "to", "actor", "reason", "forced", "served_at")
)
REQUESTED_VERSION, REQUESTED_BY = (
    "housing.requested_version",
    "housing.requested_by",
)  # of a decision that needs, or is, an approval
SIGNED_BY = "housing.signed_by"  # of a decision that signed a version: the fingerprint of the key
DECISION = "housing.decision"  # of a version, followed by the alias: the decision that moved the alias, as JSON
BEST_RUN = "housing.best_run"  # of a sweep
EVALUATION_FILE = "evaluation.json"  # artifact of a decision
PARENT = "mlflow.parentRunId"
ARTIFACT = "bundle"
TAG_FORMAT, FORMAT = "housing.tag_format", "4"  # FORMAT counts up when tags, or the keys of stored configs, change
FORMER_RUN_TYPE = "housing.kind"  # the run type in format 1, before 0.2.0
PARAM_LENGTH = 6000  # MLflow's own limits
BATCH = 100
NOT_FOUND = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
CRASH_MESSAGE = "The process exited unexpectedly (killed or out of memory?)."


def key_tag(key: str) -> dict[str, str]:
    """Return a run key as a tag. The tag's name holds it too, because stores index names but not values."""
    return {f"housing.run_key.{key[:16]}": key}


def require_current_format(run_id: str, tags: Mapping[str, str]) -> None:
    """Raise StoreError if another version of this project wrote the tags of a run."""
    is_ours = RUN_TYPE in tags or FORMER_RUN_TYPE in tags
    written = tags.get(TAG_FORMAT, "1")
    if is_ours and written != FORMAT:
        raise StoreError(
            f"Run {run_id} has tags of format {written}, written by another version of this project (expected format {FORMAT})."
            f" Fit it again: {next_command('train')}"
        )
