"""A real registry of images on loopback."""

import hashlib
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.server import free_port
from tests.support.waiting import SECONDS, wait_for

PROGRAM = "docker-registry"
HINT = f"not installed: {PROGRAM}, a package of Debian"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"


def is_installed() -> bool:
    """Return whether this machine has the registry."""
    return shutil.which(PROGRAM) is not None


@dataclass(frozen=True)
class Registry:
    """A registry at a host and port, which Docker reaches without TLS."""

    address: str

    def request(self, method: str, path: str, content: bytes | None = None, kind: str = MANIFEST) -> dict[str, str]:
        """Send a request, which must succeed. Return the headers of the response."""
        url = path if path.startswith("http") else f"http://{self.address}/v2/{path}"
        headers = {"Accept" if content is None else "Content-Type": kind}
        with urllib.request.urlopen(urllib.request.Request(url, content, headers, method=method), timeout=30) as response:
            return dict(response.headers)

    def answers(self) -> bool:
        """Return whether the registry responds."""
        try:
            self.request("GET", "")
        except OSError:
            return False
        return True

    def digest(self, name: str, tag: str) -> str:
        """Return the digest to which a tag points."""
        return self.request("HEAD", f"{name}/manifests/{tag}")["Docker-Content-Digest"]

    def push_empty(self, name: str, tag: str, author: str = "nobody") -> str:
        """Push an image without files, as Docker would, and return its digest."""
        config = json.dumps(
            {"architecture": "amd64", "os": "linux", "author": author, "rootfs": {"type": "layers", "diff_ids": []}}
        )
        blob = config.encode()
        digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
        upload = self.request("POST", f"{name}/blobs/uploads/", b"")["Location"]
        self.request("PUT", f"{upload}&digest={digest}", blob, "application/octet-stream")
        described = {"mediaType": CONFIG, "size": len(blob), "digest": digest}
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": []}
        return self.request("PUT", f"{name}/manifests/{tag}", json.dumps(manifest).encode())["Docker-Content-Digest"]


@contextmanager
def registry(folder: Path) -> Iterator[Registry]:
    """Run a registry whose images are in a folder."""
    served = Registry(f"127.0.0.1:{free_port()}")
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder / "images")}},
        "http": {"addr": served.address},
    }
    file = folder / "registry.yml"
    file.write_text(json.dumps(config), encoding="utf-8")
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen([PROGRAM, "serve", str(file)], stdout=log, stderr=log)
    try:
        wait_for(served.answers, "the registry responds")
        yield served
    finally:
        process.terminate()
        process.wait(SECONDS)
