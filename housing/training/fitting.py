"""Config to fitted model: its members, their features, early stopping, cross-validation."""

import time
from collections.abc import Mapping

import numpy as np
from omegaconf import DictConfig, OmegaConf
from threadpoolctl import threadpool_limits

from housing.bundle.ensemble import Ensemble, Member
from housing.data.split import Rows
from housing.data.table import Table
from housing.training.callbacks import AfterRound, silent
from housing.training.estimator_specs import asked
from housing.training.estimators import WATCHED, Fitted, Model, _fit_one, _learn, _Learned, _reach, _rounds


def fit(
    cfg: DictConfig,
    table: Table,
    rows: Rows,
    watched: Rows | None = None,
    rounds: Mapping[str, int] | None = None,
    after_round: AfterRound = silent,
) -> Model:
    """Fit the model of a config on some rows of a table.

    Early stopping looks at the `watched` rows; without them at a tenth of the rows that are then not fitted on; not at all
    where `rounds` says how many there are.
    """
    start = time.perf_counter()
    wanted = asked(cfg)
    if watched is None and rounds is None and any(one.stopping for one in wanted):
        watched, rows = rows[::WATCHED], np.delete(rows, np.s_[::WATCHED])
    learned: dict[str, _Learned] = {}
    members, ended = [], {}
    with threadpool_limits(cfg.threads or None):
        for one in wanted:
            seen = f"{OmegaConf.to_container(one.features, resolve=True)} {one.missing}"
            if seen not in learned:
                learned[seen] = _learn(one, len(learned), table, rows, watched)
            columns = None if one.sees is None else learned[seen].features.seen(one.sees)
            estimator = _fit_one(one, learned[seen].only(columns), (rounds or {}).get(one.name), after_round)
            if one.stopping:
                ended[one.name] = _rounds(estimator)
            members.append(Member(Fitted(estimator), learned[seen].place, one.where, columns))
        reach = _reach(cfg.model.get("reach"), table.schema, table.matrix[rows])
    ensemble = Ensemble(table.schema, [each.features for each in learned.values()], members, reach)
    return Model(ensemble, time.perf_counter() - start, ended)
