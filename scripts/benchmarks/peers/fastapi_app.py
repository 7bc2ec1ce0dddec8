"""A usual hand-written service: FastAPI, Pydantic and a DataFrame, with XGBoost's own model from model.pkl."""

import pickle

import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel


class Row(BaseModel):
    """One row of the California table."""

    MedInc: float
    HouseAge: float
    AveRooms: float
    AveBedrms: float
    Population: float
    AveOccup: float
    Latitude: float
    Longitude: float


class Rows(BaseModel):
    """A request body."""

    instances: list[Row]


with open("model.pkl", "rb") as file:
    model = pickle.load(file)  # noqa: S301  # the benchmark has just written it
app = FastAPI()


@app.post("/predict")
def predict(rows: Rows) -> dict[str, list[float]]:
    """Predict all rows of a request."""
    return {"predictions": model.predict(pd.DataFrame([row.model_dump() for row in rows.instances])).tolist()}
