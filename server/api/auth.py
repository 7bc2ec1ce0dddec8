"""API keys: authentication, rights and rate limits."""

import fcntl
import hashlib
import hmac
import math
import mmap
import os
import re
import struct
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Self

from housing.core.model_list import NAME_PATTERN
from server.core.errors import RequestError

PREDICT, METRICS, FEEDBACK = RIGHTS = ("predict", "metrics", "feedback")
KEYS_VARIABLE = "HOUSING_KEYS"
DIGEST_PATTERN = re.compile(r"[0-9a-fA-F]{64}")
CREATE_KEY_HINT = "Create such a line with: python -m server.access NAME RIGHTS"


class RequestBudget:
    """The rate limit of one key, in memory that all workers share if they are forked after its creation.

    It is a generic cell rate algorithm (GCRA): one number holds the time at which the budget is full again.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # pylint: disable=consider-using-with  # stays open
        self._file.truncate(8)
        self._full_at = mmap.mmap(self._file.fileno(), 8)
        self._lock = threading.Lock()

    def take(self, rate: float) -> float:
        """Take one request of `rate` per second, with bursts of one second. Return 0, or the seconds to wait for the next one."""
        with self._lock:  # of this process's threads
            fcntl.lockf(self._file, fcntl.LOCK_EX)  # of all workers; the kernel releases it if a worker is killed
            try:
                now = time.monotonic()
                full_at = max(now, struct.unpack_from("d", self._full_at)[0])
                wait = full_at - now - (max(rate, 1.0) - 1.0) / rate
                if wait > 0.0:
                    return float(wait)
                struct.pack_into("d", self._full_at, 0, full_at + 1.0 / rate)
                return 0.0
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)


@dataclass
class ApiKey:
    """An API key's owner, rights and hash, the models for which it may ask (none: all), and its budget of requests."""

    name: str
    rights: frozenset[str]
    digest: bytes
    models: frozenset[str]
    budget: RequestBudget = field(default_factory=RequestBudget, init=False, repr=False)

    @classmethod
    def parse(cls, line: str) -> Self:
        """Parse `name right,right hash [model,model]`. Raises ValueError, which names the owner and never the hash."""
        name, rights, digest, models, *more = (*line.split(), "", "", "", "")
        is_valid = set(rights.split(",")) <= set(RIGHTS) and DIGEST_PATTERN.fullmatch(digest) and not "".join(more)
        if not is_valid or not all(map(NAME_PATTERN.fullmatch, models.split(",") if models else ())):
            owner = f"The key of {name}" if rights else "A line"  # a single word can be a key, which no log may show
            raise ValueError(
                f"{owner} must have the form 'NAME RIGHTS HASH' or 'NAME RIGHTS HASH MODELS' with rights from {','.join(RIGHTS)} "
                f"and models such as housing-california@production. {CREATE_KEY_HINT}"
            )
        return cls(name, frozenset(rights.split(",")), bytes.fromhex(digest), frozenset(filter(None, models.split(","))))


_loaded: dict[str, list[ApiKey]] = {}  # by keys file; workers inherit it from gunicorn's master


def load_keys(keys_file: str) -> None:
    """Load the keys for this process and the workers it forks, whatever happens to the file later.

    Raises what `Access.from_settings` raises. The keys loaded before then stay.
    """
    _loaded[keys_file] = _read_keys(keys_file)


def _read_keys(keys_file: str) -> list[ApiKey]:
    keys = _parse_keys(Path(keys_file).read_text(encoding="utf-8-sig")) if keys_file else []
    if keys_file and not keys:  # it may be half-written, and without keys the server would be open
        raise ValueError(f"{keys_file} contains no API key. {CREATE_KEY_HINT}")
    return keys + _parse_keys(os.environ.get(KEYS_VARIABLE, "").replace(";", "\n"))


def _parse_keys(text: str) -> list[ApiKey]:
    return [ApiKey.parse(line) for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


class Access:
    """Authorizes requests. Without keys, every request is allowed."""

    def __init__(self, keys: Sequence[ApiKey], rate: float) -> None:
        """Take the keys and the rate limit in requests per second and key (0: unlimited)."""
        self._keys, self._rate = list(keys), rate

    @classmethod
    def from_settings(cls, keys_file: str, rate: float) -> Self:
        """Use the loaded keys, or else read the keys file (if its name is not empty) and the environment.

        Raises ValueError if a line is invalid or the file has no key, and OSError if the file cannot be read.
        """
        return cls(_loaded[keys_file] if keys_file in _loaded else _read_keys(keys_file), rate)

    @property
    def allows_anonymous(self) -> bool:
        """Whether no key is required."""
        return not self._keys

    def check(self, token: str | None, right: str) -> ApiKey | None:
        """Return the key of a request, if keys are required. Raises RequestError (401, 403, or 429 beyond the rate limit)."""
        if self.allows_anonymous:
            return None
        if not token:
            raise _unauthorized("API key required. Send the header: Authorization: Bearer KEY")
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        matches = [key for key in self._keys if hmac.compare_digest(key.digest, digest)]  # compares all: constant time
        if not matches:
            raise _unauthorized("Unknown API key.")
        key = matches[0]
        if right not in key.rights:
            raise RequestError(HTTPStatus.FORBIDDEN, f"This API key lacks the right: {right}")
        wait = key.budget.take(self._rate) if self._rate > 0 else 0.0
        if wait > 0.0:
            seconds = math.ceil(wait)
            detail = f"Rate limit of {self._rate:g} requests per second exceeded. Retry after {seconds} s."
            raise RequestError(HTTPStatus.TOO_MANY_REQUESTS, detail, headers={"Retry-After": str(seconds)})
        return key


def bearer_token(authorization: str | None) -> str | None:
    """Return the token of an Authorization header, or None if it has another scheme."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _unauthorized(detail: str) -> RequestError:
    return RequestError(HTTPStatus.UNAUTHORIZED, detail, headers={"WWW-Authenticate": "Bearer"})
