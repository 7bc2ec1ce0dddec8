"""Comparison of a distilled model with its teacher, on rows that neither of them was fitted on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from housing.data.split import Rows
from housing.data.table import Table
from housing.fitting.teacher import Teacher
from housing.schema.column import Vector
from housing.scoring.metrics import round_metrics
from housing.scoring.ranking_metric import RankingMetric

DISTANCE = "rmse_to_teacher"


@dataclass(frozen=True)
class Distillation:
    """Scores of a teacher and of its student on the same validation rows.

    Attributes
    ----------
    distance
        Root mean square difference between the predictions of both, in the target's unit.
    """

    teacher: Teacher
    teacher_scores: Mapping[str, float]
    student_scores: Mapping[str, float]
    distance: float

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the run that speak of the teacher."""
        return {**{f"teacher_{name}": value for name, value in self.teacher_scores.items()}, DISTANCE: self.distance}

    def to_card(self) -> dict[str, Any]:
        """Return what the model card says of the teacher."""
        return {
            "teacher": self.teacher.name,
            "folds": self.teacher.folds,
            "true_share": self.teacher.true_share,
            "validation": {
                "teacher": round_metrics(self.teacher_scores),
                "student": round_metrics(self.student_scores),
                **round_metrics({DISTANCE: self.distance}),
            },
        }

    def describe(self, metric: str) -> str:
        """Return the comparison as a sentence."""
        fitted = "" if self.teacher.folds else ", which is too good if the teacher was fitted on these rows"
        student, teacher = self.student_scores[metric], self.teacher_scores[metric]
        return (
            f"Distilled from {self.teacher.name}: the {metric} on the validation rows is {student:.6g}, that of the teacher"
            f" {teacher:.6g}{fitted}. The RMSE between their predictions is {self.distance:.6g}."
        )


def compare_with_teacher(
    teacher: Teacher, metric: RankingMetric, table: Table, fit_rows: Rows, rows: Rows, student: Vector
) -> Distillation:
    """Score a teacher, fitted on `fit_rows` unless it is fitted already, and the predictions of its student on some rows."""
    actual, weight = table.target[rows], table.weight_of(rows)
    predicted = teacher.predict(table, fit_rows, rows)
    distance = float(np.sqrt(np.average(np.square(student - predicted), weights=weight)))
    return Distillation(teacher, metric.score(predicted, actual, weight), metric.score(student, actual, weight), distance)
