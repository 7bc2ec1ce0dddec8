"""Signing: the version that a decision moves to an alias is signed with `signing_key`, so that servers can refuse all others.

The signature is made by the package model-signing (OpenSSF), an extra, and stored in a tag of the version
(`housing.server_files.signatures` describes its content). Versions keep one signature for each key.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from housing.bundle.file_format import CHECKSUMS, check_files
from housing.core.errors import BundleError, ConfigError
from housing.core.files import sha256
from housing.server_files.signatures import CURVES, fingerprint, subject


@dataclass(frozen=True)
class Signer:
    """A private key that signs bundles. `fingerprint` is that of its public key."""

    key: Path
    fingerprint: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a private key. Raises ConfigError if it is none, or if the extra `sign` is missing."""
        try:
            # pylint: disable=import-outside-toplevel,unused-import  # an extra
            import model_signing  # noqa: F401
            from cryptography.hazmat.primitives.serialization import load_pem_private_key
        except ImportError as error:
            raise ConfigError(
                f"signing_key needs the package model-signing ({error}). Install it with: pip install 'housing[sign]'"
            ) from error
        try:
            key: Any = load_pem_private_key(path.read_bytes(), None)
            curve = key.curve.name
        except (OSError, ValueError, TypeError, AttributeError) as error:  # TypeError: it is encrypted
            new = path if not path.exists() else "NEW_FILE"  # the command must not replace a key that has a password
            raise ConfigError(
                f"signing_key must be a PEM file of a private ECDSA key without a password (got {path}: {error})."
                f" Make one with: openssl ecparam -name prime256v1 -genkey -noout -out {new}"
            ) from error
        if curve not in CURVES:
            raise ConfigError(f"signing_key must be a key on {', '.join(CURVES)} (got {path}: {curve}).")
        return cls(path, fingerprint(key.public_key()))

    def sign_judged(self, bundle: Path, model: str, version: str, judged: str) -> str:
        """Return the signature of a bundle. Raises BundleError if it is damaged, or has other checksums than `judged`."""
        check_files(bundle)
        if judged and sha256(bundle / CHECKSUMS) != judged:
            raise BundleError(f"Version {version} of {model} was not signed: its bundle is no longer the one that was judged.")
        return self.sign(bundle, model, version)

    def sign(self, bundle: Path, model: str, version: str) -> str:
        """Return the signature of all files of a bundle, as this version of this model."""
        # pylint: disable=import-outside-toplevel  # an extra
        from model_signing import hashing, signing

        with tempfile.TemporaryDirectory(prefix="housing-") as scratch:
            tree, file = Path(scratch) / subject(model, version), Path(scratch) / "signature"
            shutil.copytree(bundle, tree)  # model-signing takes the subject from the name of the directory
            files = hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)
            signing.Config().use_elliptic_key_signer(private_key=self.key).set_hashing_config(files).sign(tree, file)
            return file.read_text(encoding="utf-8")
