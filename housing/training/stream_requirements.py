"""Requirements of runs whose table is read in chunks. They are checked before the table is read, which takes minutes."""

from omegaconf import DictConfig

from housing.cluster.connection import ClusterSettings, require_cluster
from housing.core.errors import ConfigError
from housing.data.settings import parse_schema
from housing.estimators.specs import estimator_specs
from housing.features.pipeline import Features
from housing.fitting.intervals import OUT_OF_FOLD, VALIDATION
from housing.streaming.column_chunks import require_row_features
from housing.streaming.settings import DASK


def require_streamable(cfg: DictConfig) -> None:
    """Raise ConfigError, with the alternative, if a run needs all columns of its training rows at once.

    With `engine=dask`, raise ClusterError if no worker can be reached.
    """
    # pylint: disable-next=import-outside-toplevel  # XGBoost takes seconds to import
    from housing.estimators.xgboost_chunks import require_histogram_xgboost

    if cfg.engine.name == DASK:
        require_cluster(ClusterSettings.from_config(cfg.engine, "engine"))
    schema = parse_schema(cfg.data)
    for spec in estimator_specs(cfg):
        require_histogram_xgboost(spec.name, spec.create_estimator())
        require_row_features(Features(schema, spec.features, spec.nan_handling))
    for key, unset in (("applicability", "null"), ("select_members", "false"), ("teacher", "null")):
        if cfg.model.get(key):
            raise ConfigError(f"engine=stream and dask need model.{key}={unset}. Use model=xgboost, or engine=memory.")
    if cfg.interval.estimator is not None and cfg.interval.held_out == OUT_OF_FOLD:
        raise ConfigError(
            f"engine=stream and dask need interval.held_out={VALIDATION} (got {OUT_OF_FOLD})."
            " Use interval=scaled, or engine=memory."
        )
