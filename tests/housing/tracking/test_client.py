"""Experiments: any name has an artifact directory of its own inside the artifact root."""

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest

from housing.core.errors import ConfigError, StoreError
from housing.tracking.store import Store

NAMES = ("plain", "../../outside", "..", "a/b", "a/../../b", "a%2F..%2Fb", "a?b#c", "with space", "größe", "/etc", 123)


def test_an_artifact_directory_never_leaves_the_root(home: Path) -> None:
    root = home / "art ifacts"
    store = Store(f"sqlite:///{home}/mlflow.db", str(root), ui="")
    locations = []
    for name in NAMES:
        experiment: Any = name
        with store.runs.start(experiment, "run", {}) as run:
            run.log_text("note.txt", str(name))
        assert store.artifacts.read_text(run.id, "note.txt") == str(name)
        location = store.client.api.get_experiment(run.experiment_id).artifact_location
        locations.append(Path(unquote(urlparse(location).path)).resolve())
    assert {location.parent for location in locations} == {root}
    assert len(set(locations)) == len(NAMES) and locations[0].name == "plain"
    assert {path.name for path in root.iterdir()} == {location.name for location in locations}


def test_an_artifact_root_that_a_url_cannot_name_is_refused(home: Path) -> None:
    store = Store(f"sqlite:///{home}/mlflow.db", f"{home}/a%20b", ui="")
    with pytest.raises(ConfigError, match="must not contain %"):
        store.client.experiment_id("any")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("sqlite:///{home}/data/rentals.csv", "file is not a database"),
        ("sqlite:///{home}/data/rentals.csv/mlflow.db", "FileExistsError"),
        ("nothing://user:secret@host/name", "unsupported URI 'nothing://user:\\*\\*\\*@host/name'"),
        ("postgresql+nothing://user:secret@host/name", "unsupported URI|load plugin"),
        ("http://user:secret@127.0.0.1:9", "is unavailable: API request to http://user:\\*\\*\\*@127.0.0.1:9"),
    ],
)
def test_what_is_no_store_is_named_in_one_sentence_without_its_password(home: Path, uri: str, reason: str) -> None:
    with pytest.raises(StoreError, match=reason) as raised:
        Store(uri.format(home=home), artifact_root=None, ui="")
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)
