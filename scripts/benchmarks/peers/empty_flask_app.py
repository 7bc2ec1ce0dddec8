"""An endpoint that reads the body and predicts nothing: what Flask and gunicorn alone cost."""

from flask import Flask, Response, request

app = Flask(__name__)


@app.post("/predict")
def predict() -> Response:
    """Read the body and return a constant."""
    request.get_data()
    return Response('{"predictions":[1.0]}', mimetype="application/json")
