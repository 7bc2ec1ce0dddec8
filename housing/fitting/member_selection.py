"""Selection of the members of a model, with weights, by their predictions of held-out rows."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from housing.bundle.ensemble import Ensemble, clip_to_bounds
from housing.bundle.log_transform import LogTransform
from housing.data.table import Table
from housing.fitting.ensemble_selection import select_ensemble
from housing.schema.column import Matrix, Vector
from housing.scoring.metrics import score


@dataclass(frozen=True)
class MemberSelection:
    """The members that a fit selected.

    Attributes
    ----------
    weights
        The weight of each selected member by its name.
    held_out_rmse
        RMSE of each candidate on the held-out rows, in the target's unit, by its name. Empty if nothing was selected.
    n_rows
        The number of held-out rows.
    """

    weights: dict[str, float]
    held_out_rmse: dict[str, float] = field(default_factory=dict)
    n_rows: int = 0


def select_members(
    ensemble: Ensemble,
    names: list[str],
    predictions: Matrix,
    held_out: Table,
    max_relative_rmse: float | None,
    *,
    log_target: bool,
) -> tuple[Ensemble, MemberSelection]:
    """Return the ensemble of the members whose weighted mean has the lowest RMSE on held-out rows.

    Parameters
    ----------
    ensemble
        All candidates.
    names
        The name of each candidate.
    predictions
        Of the held-out rows by each candidate, shape (candidates, rows): the target, or its logarithm.
    held_out
        The held-out rows.
    max_relative_rmse
        A candidate is left out if its own RMSE is above this multiple of the lowest (None: never). On an unusual row it may
        err without limit.
    log_target
        Whether the candidates predict the logarithm of the target.
    """
    rmse = _rmse_of(held_out, log_target=log_target)
    own = np.array([rmse(row) for row in predictions])
    is_close = own <= (math.inf if max_relative_rmse is None else max_relative_rmse) * own.min()
    counts = np.zeros(len(names), dtype=np.intp)
    counts[is_close] = select_ensemble(predictions[is_close], rmse, costs=np.zeros((is_close.sum(), 0)), limits=np.zeros(0))
    weights = {name: float(count) for name, count in zip(names, counts, strict=True) if count}
    members = [
        replace(member, weight=weights[name]) for name, member in zip(names, ensemble.members, strict=True) if name in weights
    ]
    used = sorted({member.features for member in members})
    mean = np.average(predictions, axis=0, weights=counts)
    selected = replace(
        ensemble,
        features=[ensemble.features[index] for index in used],
        members=[replace(member, features=used.index(member.features)) for member in members],
        transform=LogTransform.fit(mean, held_out.target, held_out.weight) if log_target else None,
    )
    own_rmse = dict(zip(names, own.tolist(), strict=True))
    return selected, MemberSelection(weights, own_rmse, len(held_out))


def _rmse_of(held_out: Table, *, log_target: bool) -> Callable[[Vector], float]:
    """Return a function of predictions of the held-out rows, shape (rows,), that computes their RMSE in the target's unit."""

    def rmse(predicted: Vector) -> float:
        if log_target:
            predicted = LogTransform.fit(predicted, held_out.target, held_out.weight).to_target(predicted)
        return score(clip_to_bounds(held_out.schema, predicted), held_out.target, held_out.weight)["rmse"]

    return rmse
