"""The canary of an alias: a version that answers a share of the requests, beside the version at the alias.

The registry holds its state, so that all servers agree: the alias `<alias>-canary`, and a tag of the version at it. A canary is
over as soon as its alias is gone, or as soon as the alias beside it has moved.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Self

HASH_BYTES = 8


@dataclass(frozen=True)
class Canary:
    """A version that answers a share of the requests.

    Attributes
    ----------
    champion
        The version at the alias, which answers the others.
    share
        The share of the requests, above 0 and below 1.
    since
        When it began (Unix seconds).
    """

    version: str
    champion: str
    share: float
    since: float

    @classmethod
    def parse(cls, version: str, champion: str | None, tag: str | None) -> Self | None:
        """Read the tag of the version at a canary's alias. Return None unless it names the version at the alias as champion."""
        try:
            state = json.loads(tag or "")
            canary = cls(version, str(state["champion"]), float(state["share"]), float(state["since"]))
        except (ValueError, TypeError, KeyError):
            return None
        return canary if canary.champion == champion and 0 < canary.share < 1 else None

    @property
    def tag(self) -> str:
        """The value of the tag."""
        return json.dumps({name: value for name, value in asdict(self).items() if name != "version"})


def canary_alias(alias: str) -> str:
    """Return the alias of the canary beside an alias."""
    return f"{alias}-canary"


def canary_tag(alias: str) -> str:
    """Return the name of the tag of a version that is the canary beside an alias."""
    return f"housing.canary.{alias}"


def is_chosen(version: str, choice: str, share: float) -> bool:
    """Return whether a canary answers a request, given what is chosen by: its API key or its ID.

    The version is part of the hash, so that the next canary gets other keys.
    """
    digest = hashlib.blake2b(f"{version}:{choice}".encode("utf-8", "surrogateescape"), digest_size=HASH_BYTES).digest()
    return int.from_bytes(digest) < share * 256**HASH_BYTES
