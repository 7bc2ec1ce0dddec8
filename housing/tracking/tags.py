"""Names of tags, artifacts and limits in the store."""

RUN_TYPE, DATA, COLUMNS, SPLIT, MODEL_ID, EVALUATION, CODE, FOLDER, ERROR = (
    f"housing.{name}" for name in ("run_type", "data", "columns", "split", "model_id", "evaluation", "code", "folder", "error")
)
CHALLENGER, EVALUATED = "housing.challenger", "housing.evaluated"  # of a decision
ALIAS, VERDICT, FROM, TO, ACTOR, REASON, FORCED, SERVED = (
    f"housing.{name}" for name in ("alias", "verdict", "from", "to", "actor", "reason", "forced", "served_at")
)
DECISION = "housing.decision"  # of a version, with the alias behind it: the decision by which it came there, as JSON
BEST_RUN = "housing.best_run"  # of a sweep
EVALUATION_FILE = "evaluation.json"  # artefact of a decision
PARENT = "mlflow.parentRunId"
ARTIFACT = "bundle"
PARAM_LENGTH = 6000  # MLflow's own limits
BATCH = 100
NOT_FOUND = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
CRASH_MESSAGE = "The process exited unexpectedly (killed or out of memory?)."


def key_tag(key: str) -> dict[str, str]:
    """Give a run key as a tag. It is in the tag's name too: stores have an index of names, and none of values."""
    return {f"housing.run_key.{key[:16]}": key}
