"""Signatures of releases: the keys that a server trusts, and whether a bundle is exactly what one of them signed.

A signature is a Sigstore bundle around a DSSE envelope, as the package model-signing (OpenSSF) writes it: the signed statement
lists each file of the bundle with its checksum, and its subject is MODEL:VERSION. Workers check it without that package, which
would take 57 MB of each. The check needs the extra `verify`.
"""

import base64
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256 as new_sha256
from pathlib import Path
from typing import Any, Self

from housing.core.errors import ConfigError, UntrustedError
from housing.core.files import sha256
from housing.server_files import releases

TAG_PREFIX = "housing.signature."  # of a version, followed by the fingerprint of the key: the signature
CURVES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}  # with the hash that model-signing uses
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = {"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://model_signing/signature/v1.0"}
DAMAGED = "its signature is not a Sigstore bundle as model-signing writes it"
MISSING_LIBRARY = "{} needs the package cryptography. Install it with: pip install 'housing[verify]'"


def subject(model: str, version: str) -> str:
    """Return what a signature names: no signature is valid for another version, or another model."""
    return f"{model}:{version}"


@dataclass(frozen=True)
class Signature:
    """A signed statement, with the fingerprint of the key."""

    fingerprint: str
    payload: bytes
    value: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a signature. Each byte counts: a text that differs from what `to_text` writes raises UntrustedError."""
        try:
            content = json.loads(text)
            envelope = content["dsseEnvelope"]
            (signature,) = envelope["signatures"]
            hint = content["verificationMaterial"]["publicKey"]["hint"]
            parsed = cls(hint, base64.b64decode(envelope["payload"]), base64.b64decode(signature["sig"]))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UntrustedError(DAMAGED) from error
        if not isinstance(hint, str) or parsed.to_text() != text:
            raise UntrustedError(DAMAGED)
        return parsed

    def to_text(self) -> str:
        """Return the only accepted notation."""
        envelope = {
            "payload": base64.b64encode(self.payload).decode("ascii"),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(self.value).decode("ascii"), "keyid": ""}],
        }
        material = {"publicKey": {"hint": self.fingerprint}, "tlogEntries": []}
        content = {"mediaType": MEDIA_TYPE, "verificationMaterial": material, "dsseEnvelope": envelope}
        return json.dumps(content, separators=(",", ":"))

    @property
    def signed_bytes(self) -> bytes:
        """The bytes that the key signed: DSSE's encoding of type and payload."""
        return b"DSSEv1 %d %b %d %b" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode("ascii"), len(self.payload), self.payload)

    def statement(self) -> tuple[str, dict[str, str]]:
        """Return the subject and the checksums of the files. Call it once the signature is verified."""
        try:
            content = json.loads(self.payload)
            (signed,), predicate = content["subject"], content["predicate"]
            resources = {resource["name"]: resource["digest"] for resource in predicate["resources"]}
            is_known = {name: content[name] for name in STATEMENT} == STATEMENT
            is_known = is_known and {resource["algorithm"] for resource in predicate["resources"]} == {"sha256"}
            name = signed["name"]
        except (ValueError, KeyError, TypeError) as error:
            raise UntrustedError(DAMAGED) from error
        if not is_known:
            raise UntrustedError(DAMAGED)
        return name, resources


class TrustedKeys:
    """The public keys whose signatures a server accepts. Without a key, it accepts every version."""

    def __init__(self, files: str) -> None:
        """Read PEM files, given as paths with commas. Raises ConfigError."""
        self._keys = dict(_read_key(Path(file)) for file in files.split(",")) if files else {}

    def __bool__(self) -> bool:
        return bool(self._keys)

    def verify(self, bundle: Path, signatures: Sequence[str], model: str, version: str) -> str:
        """Return the signature by which a bundle is trusted, or "" if no key is set.

        Raises
        ------
        UntrustedError
            If there is none, with the command that signs the version.
        """
        if not self:
            return ""
        problems = []
        for text in signatures:
            try:
                signature = Signature.parse(text)
                self._verify(signature, bundle, subject(model, version))
            except UntrustedError as error:
                problems.append(str(error))
            else:
                return text
        raise UntrustedError(
            f"Version {version} of {model} is not trusted (serve.trusted_keys): {'; '.join(problems) or 'it is not signed'}."
            " Sign it with: python -m housing.promote alias=ALIAS signing_key=FILE"
        )

    def _verify(self, signature: Signature, bundle: Path, expected_subject: str) -> None:
        # pylint: disable=import-outside-toplevel  # an extra
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

        key = self._keys.get(signature.fingerprint)
        if key is None:
            raise UntrustedError(f"it is signed with key {signature.fingerprint:.64}, which is none of {', '.join(self._keys)}")
        algorithm: hashes.HashAlgorithm = getattr(hashes, CURVES[key.curve.name])()
        try:
            key.verify(signature.value, signature.signed_bytes, ECDSA(algorithm))
        except InvalidSignature as error:
            raise UntrustedError(f"the signature of key {signature.fingerprint} is forged or damaged") from error
        signed_subject, signed_files = signature.statement()
        if signed_subject != expected_subject:
            raise UntrustedError(f"its signature is that of {signed_subject}")
        found_files = checksums(bundle)
        changed = sorted(name for name, digest in signed_files.items() ^ found_files.items())
        if changed:
            raise UntrustedError(f"{changed[0]} was changed, added or removed after it was signed")

    @contextmanager
    def verified(self, release: Path, model: str) -> Iterator[Path]:
        """Yield a release that is trusted as one of a model: a private copy, which nobody changes after the check.

        Without a key, it is the release itself.

        Raises
        ------
        UntrustedError
            If it is not signed by a trusted key, or differs from what was signed.
        """
        if not self:
            yield release
            return
        with tempfile.TemporaryDirectory(prefix="housing-") as scratch:
            copy = Path(shutil.copytree(release, Path(scratch) / "release", symlinks=True))
            try:
                info, path = releases.release_info(copy), copy / releases.SIGNATURE_FILE
                named, version = info["model"], info["version"]
                signatures = [path.read_text(encoding="utf-8")] if path.is_file() else []
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise UntrustedError(f"Release {release.name} is damaged: {error}") from None
            if named != model:
                raise UntrustedError(f"Release {release.name} is of {named}, not of {model}.")
            self.verify(copy / releases.BUNDLE, signatures, model, version)
            yield copy


NO_KEYS = TrustedKeys("")


def checksums(bundle: Path) -> dict[str, str]:
    """Return the checksums of all files of a bundle. Raises UntrustedError if it holds a link or another special file."""
    found = {}
    for path in bundle.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise UntrustedError(f"{path.name} is not a regular file")
        if path.is_file():
            found[path.relative_to(bundle).as_posix()] = sha256(path)
    return found


def _read_key(path: Path) -> tuple[str, Any]:
    try:
        # pylint: disable=import-outside-toplevel  # an extra
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError as error:
        raise ConfigError(MISSING_LIBRARY.format("serve.trusted_keys")) from error
    try:
        key: Any = load_pem_public_key(path.read_bytes())
        curve = key.curve.name
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"serve.trusted_keys must be PEM files of public ECDSA keys (got {path}: {error})."
            " Write one with: openssl pkey -in KEY -pubout -out FILE"
        ) from error
    if curve not in CURVES:
        raise ConfigError(f"{path} (serve.trusted_keys) must be a key on {', '.join(CURVES)} (got {curve}).")
    return fingerprint(key), key


def fingerprint(key: Any) -> str:
    """Return the SHA-256 checksum of a public key in PEM, as `sha256sum` prints it for the file."""
    # pylint: disable=import-outside-toplevel  # an extra
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return new_sha256(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
