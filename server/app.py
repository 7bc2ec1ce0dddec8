"""The app: wires the parts of the server."""

from flask import Flask

from server.errors import handle_errors
from server.metrics import measure
from server.model import InUse
from server.routes import api
from server.settings import Settings


def create_app() -> Flask:
    """Make the app that the environment describes."""
    settings = Settings.from_environment()
    app = Flask(__name__)
    app.config.update(MAX_CONTENT_LENGTH=settings.max_body, MAX_ROWS=settings.max_rows)
    app.extensions["in_use"] = InUse(settings.folder, settings.poll)
    app.register_blueprint(api)
    handle_errors(app)
    measure(app)
    return app
