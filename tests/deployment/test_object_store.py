"""Tables and models on a real S3 server that checks signatures; runs in a real PostgreSQL."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pytest

from housing.core.environment import PROJECT
from tests.support import cluster
from tests.support.commands import command, dvc
from tests.support.object_store import BUCKET, ObjectStore, object_store, weed
from tests.support.tables import TABLES, rentals_frame

pytestmark = [
    pytest.mark.long,
    pytest.mark.xdist_group("object store"),
    pytest.mark.skipif(weed() is None, reason="weed is not installed: locks/s3.txt"),
]
DATA = (f"--config-dir={TABLES}", "data=rentals")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A running S3 server."""
    with object_store(tmp_path_factory.mktemp("objects")) as running:
        yield running


def remove_table(home: Path) -> Path:
    """Remove the table and the cache of DVC, as in a fresh clone. Return the path of the table."""
    table = home / "data" / "rentals.csv"
    table.unlink()
    shutil.rmtree(home / ".dvc" / "cache")
    return table


def test_a_table_pushed_to_s3_is_pulled_unchanged(versioned: Path, objects: ObjectStore) -> None:
    content = (versioned / "data" / "rentals.csv").read_bytes()
    dvc(versioned, "remote", "modify", "--local", "s3", "url", f"s3://{BUCKET}/tables")
    dvc(versioned, "remote", "default", "--local", "s3")
    assert "1 file pushed" in dvc(versioned, "push", **objects.environment)
    assert [name.startswith("tables/files/md5/") for name in objects.names()] == [True]
    table = remove_table(versioned)
    fetched = command(versioned, "housing.fetch", *DATA, cwd=PROJECT, **objects.environment)
    assert "rentals.csv pulled by DVC" in fetched.out, fetched.err
    assert table.read_bytes() == content


@pytest.mark.parametrize(("name", "value"), [("AWS_ACCESS_KEY_ID", "nobody"), ("AWS_SECRET_ACCESS_KEY", "guessed")])
def test_a_wrong_key_is_an_error_of_push_and_fetch(versioned: Path, objects: ObjectStore, name: str, value: str) -> None:
    dvc(versioned, "remote", "default", "--local", "s3")
    wrong = {**objects.environment, name: value}
    with pytest.raises(AssertionError, match="ERROR: .*Forbidden"):
        dvc(versioned, "push", **wrong)
    table = remove_table(versioned)
    fetched = command(versioned, "housing.fetch", *DATA, cwd=PROJECT, **wrong)
    assert fetched.code == 1
    assert "error: dvc pull rentals.csv: failed to connect to s3 (housing/files/md5) - Forbidden" in fetched.err
    assert not table.exists()


@pytest.mark.cluster
@pytest.mark.skipif(bool(cluster.missing()), reason=cluster.missing() or "nothing is missing")
@pytest.mark.parametrize("writer", ["server", "clients"])
def test_models_are_stored_on_s3_and_runs_in_postgresql(objects: ObjectStore, writer: str) -> None:
    before = set(objects.names())
    with ExitStack() as stack:
        home = stack.enter_context(cluster.shared_directory())
        (home / "data").mkdir()
        rentals_frame().to_csv(home / "data" / "rentals.csv", index=False)
        database = stack.enter_context(cluster.postgres(home))
        if writer == "server":  # only the server has the keys
            root = f"s3://{BUCKET}/mlflow"
            server = stack.enter_context(cluster.MlflowServer(home, database, root, objects.environment))
            store, keys = ["mlflow=server"], {"MLFLOW_TRACKING_URI": server.address}
        else:
            store = [f"mlflow.tracking_uri={database}", f"mlflow.artifacts=s3://{BUCKET}/direct"]
            keys = objects.environment
        overrides = [*DATA, *store]
        for entry, *more in (("train", "model=linear", "features=none"), ("promote",), ("predict", *_files(home))):
            result = command(home, f"housing.{entry}", *overrides, *more, cwd=PROJECT, **keys)
            assert result.code == 0, result.err
        assert pd.read_csv(home / "out.csv").rent_predicted.between(0, 5000).all()
        assert not (home / "mlartifacts").exists() and not (home / "artifacts").exists()
    new = set(objects.names()) - before
    assert any(name.endswith("members/0/model.onnx") for name in new), new


def _files(home: Path) -> list[str]:
    return [f"file={home / 'data' / 'rentals.csv'}", f"out={home / 'out.csv'}"]
