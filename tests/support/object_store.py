"""A real S3 server on this machine, which checks signatures."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from tests.support.cluster import daemon
from tests.support.server import free_port

BUCKET, KEY, SECRET = "housing", "someone", "a secret"


PARTS = ("master", "volume", "filer", "s3")


@dataclass(frozen=True)
class ObjectStore:
    """A running S3 server with one bucket."""

    address: str

    @property
    def environment(self) -> dict[str, str]:
        """The standard environment variables with which an S3 client reaches the server."""
        keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        return {**keys, "AWS_ENDPOINT_URL": self.address, "AWS_DEFAULT_REGION": "us-east-1"}

    def names(self) -> list[str]:
        """Return the names of all objects in the bucket."""
        return [entry["Key"] for entry in self._client().list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    def answers(self) -> bool:
        """Return whether the server lists its buckets."""
        try:
            self._client().list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return True

    def make_bucket(self) -> None:
        """Create the bucket."""
        self._client().create_bucket(Bucket=BUCKET)

    def _client(self) -> Any:  # boto3 creates its classes at run time
        return boto3.client("s3", "us-east-1", endpoint_url=self.address, aws_access_key_id=KEY, aws_secret_access_key=SECRET)


def weed() -> str | None:
    """Return the path of the server's program, or None if it is not installed (locks/s3.txt)."""
    return shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))


@contextmanager
def object_store(home: Path) -> Iterator[ObjectStore]:
    """Run a SeaweedFS server with one bucket and one key on free ports."""
    program = weed()
    assert program is not None
    identity = {"name": "tests", "credentials": [{"accessKey": KEY, "secretKey": SECRET}]}
    rights = {"actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    (home / "keys.json").write_text(json.dumps({"identities": [{**identity, **rights}]}), encoding="utf-8")
    (home / "objects").mkdir()
    ports = {f"{name}.port{kind}": free_port() for name in PARTS for kind in ("", ".grpc")}
    listen = [f"-{name}={port}" for name, port in ports.items()]
    sockets = [f"-{name}.localSocket={home}/{name}.sock" for name in ("filer", "s3")]
    sizes = ["-volume.max=200", "-master.volumeSizeLimitMB=64"]  # a bucket uses seven volumes
    quiet = ["-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.preStopSeconds=0"]
    storage = [
        f"-dir={home / 'objects'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-filer",
        "-s3",
        f"-s3.config={home / 'keys.json'}",
    ]
    store = ObjectStore(f"http://127.0.0.1:{ports['s3.port']}")
    arguments = [program, "server", *storage, *listen, *sockets, *sizes, *quiet]
    with daemon(arguments, home / "weed.log", store.answers):
        store.make_bucket()
        yield store
