"""TODO docstring."""

import hashlib
import hmac
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Self

from server.core.errors import RequestError

PREDICT, METRICS, FEEDBACK = "predict", "metrics", "feedback"


RIGHTS = (PREDICT, METRICS, FEEDBACK)


KEYS_VARIABLE = "HOUSING_KEYS"


@dataclass
class ApiKey:
    """One key: its owner's name, what it may, its hash, and how many requests it has left."""

    name: str
    rights: frozenset[str]
    digest: bytes
    tokens: float = field(default=0.0, init=False)
    refilled_at: float = field(default_factory=lambda: -1e9, init=False)

    @classmethod
    def parse(cls, line: str) -> Self:
        """Read `name right,right hash`. Raises ValueError, which names the line's owner and never the hash."""
        name, rights, digest = (*line.split(), "", "")[:3]
        known = frozenset(rights.split(","))
        if len(line.split()) != 3 or not known <= set(RIGHTS) or len(digest) != 64:
            raise ValueError(
                f"the key of {name} is not of the form 'name rights hash'; rights are some of {','.join(RIGHTS)};"
                " python -m server.access makes such a line"
            )
        return cls(name, known, bytes.fromhex(digest))


_loaded: dict[str, list[ApiKey]] = {}  # by the keys file; gunicorn's master holds them, and each worker that it forks has a copy


def load_keys(keys_file: str) -> None:
    """Read the keys, and have this process and all that it forks take these from now on, whatever becomes of the file.

    Raises what `Access.configured` does; then those that were held before stay.
    """
    _loaded[keys_file] = _read_keys(keys_file)


def _read_keys(keys_file: str) -> list[ApiKey]:
    keys = _parse_keys(Path(keys_file).read_text(encoding="utf-8")) if keys_file else []
    if keys_file and not keys:  # it may just be being written; to take it for none would let everybody in
        raise ValueError(f"{keys_file} holds no key; python -m server.access makes a line for it")
    return keys + _parse_keys(os.environ.get(KEYS_VARIABLE, "").replace(";", "\n"))


def _parse_keys(text: str) -> list[ApiKey]:
    return [ApiKey.parse(line) for line in text.splitlines() if line.strip() and not line.startswith("#")]


class Access:
    """Lets requests in: all of them where there are no keys."""

    def __init__(self, keys: Sequence[ApiKey], rate: float) -> None:
        """Take the keys, and how many requests a second each may make here (0: any number)."""
        self._keys, self._rate = list(keys), rate
        self._lock = threading.Lock()

    @classmethod
    def from_settings(cls, keys_file: str, rate: float) -> Self:
        """Take the keys that are held, or else read those of a file (none where the name is empty) and of the environment.

        Raises ValueError for a line that is no key and for a file without any, OSError for a file that is not there.
        """
        return cls(_loaded[keys_file] if keys_file in _loaded else _read_keys(keys_file), rate)

    @property
    def allows_anonymous(self) -> bool:
        """Whether everybody is let in."""
        return not self._keys

    def check(self, token: str | None, right: str) -> None:
        """Let a request in that carries a key with the right. Raises RequestError: 401, 403, or 429 where it asks too often."""
        if self.allows_anonymous:
            return
        if not token:
            raise _unauthorized("a key is needed: Authorization: Bearer KEY")
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        found = [key for key in self._keys if hmac.compare_digest(key.digest, digest)]  # all are compared, whichever fits
        if not found:
            raise _unauthorized("the key is not known")
        if right not in found[0].rights:
            raise RequestError(HTTPStatus.FORBIDDEN, f"this key lacks the right: {right}")
        if self._rate > 0 and not self._take_token(found[0]):
            raise RequestError(
                HTTPStatus.TOO_MANY_REQUESTS, "this key asks too often; try again in a second", headers={"Retry-After": "1"}
            )

    def _take_token(self, key: ApiKey) -> bool:
        """Take one of the requests that a key has left; a second's worth of them is saved at most."""
        with self._lock:
            now = time.monotonic()
            key.tokens = min(max(self._rate, 1.0), key.tokens + (now - key.refilled_at) * self._rate)
            key.refilled_at = now
            if key.tokens < 1.0:
                return False
            key.tokens -= 1.0
            return True


def bearer_token(authorization: str | None) -> str | None:
    """Give the key of an Authorization header."""
    scheme, _, key = (authorization or "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else None


def _unauthorized(detail: str) -> RequestError:
    return RequestError(HTTPStatus.UNAUTHORIZED, detail, headers={"WWW-Authenticate": "Bearer"})
