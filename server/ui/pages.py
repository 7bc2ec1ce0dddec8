"""The prediction page and the API documentation, with the data that their scripts load."""

from http import HTTPStatus
from pathlib import Path

import flask_swagger_ui
from flask import Blueprint, Response, abort, current_app, render_template, request, send_from_directory

from housing.bundle.bundle import GOLDEN_COVERAGE, Bundle
from housing.openapi.document import INFER_PATHS, MODEL_PATHS, Service, build_document
from server.api.context import ROUTES_OF_A_MODEL, json_response, require_model
from server.api.prediction import FAST_ROUTES
from server.api.routes import RIGHTS
from server.core.errors import RequestError
from server.inference_protocol.metadata import example_request

SWAGGER_DIR = Path(flask_swagger_ui.__file__).parent / "dist"
SWAGGER_FILES = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
CACHE_SECONDS = 3600
pages_blueprint = Blueprint("pages", __name__)


@pages_blueprint.get("/")
def page() -> tuple[str, int]:
    """Return the prediction page, or instructions if there is no model yet."""
    try:
        require_model()
    except RequestError as error:
        config = current_app.config
        return render_template("no_model.html", reason=error.detail, model=config["MODEL"], alias=config["ALIAS"]), error.status
    return render_template("page.html"), 200


@pages_blueprint.get("/examples")
def examples() -> Response:
    """Return known rows with their predictions, and the coverage of the intervals."""
    bundle = require_model().bundle
    background = {"rows": bundle.schema.decode(bundle.background), "predictions": bundle.predict(bundle.background).tolist()}
    golden = {name: bundle.golden[name] for name in ("rows", "predictions")}
    return json_response({"background": background, "golden": golden, "coverage": _interval_coverage(bundle)})


def _interval_coverage(bundle: Bundle) -> float | None:
    return None if bundle.interval is None else min(GOLDEN_COVERAGE, bundle.interval.max_coverage)


@pages_blueprint.get("/openapi.json")
def openapi() -> Response:
    """Return the OpenAPI document of the current model."""
    model, access = require_model(), current_app.extensions["access"]
    protected = () if access.allows_anonymous else (*FAST_ROUTES, *RIGHTS, *MODEL_PATHS, *INFER_PATHS)
    service = Service(current_app.config["MAX_ROWS"], protected, request.script_root, ROUTES_OF_A_MODEL)
    return json_response(build_document(model.bundle, model.info, dict(model.example), example_request(model), service))


@pages_blueprint.get("/docs")
def docs() -> str:
    """Return the interactive API documentation."""
    return render_template("docs.html")


@pages_blueprint.get("/docs/<name>")
def swagger(name: str) -> Response:
    """Return a file of Swagger UI from its installed package."""
    if name not in SWAGGER_FILES:
        abort(HTTPStatus.NOT_FOUND)
    return send_from_directory(SWAGGER_DIR, name, max_age=CACHE_SECONDS)
