"""Keys that sign bundles."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from housing.promotion.signing import Signer
from housing.server_files.signatures import TrustedKeys


def new_key(folder: Path, name: str, curve: ec.EllipticCurve | None = None) -> tuple[Path, Path]:
    """Write a new key pair as PEM files, and return the private and the public one."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    private, public = folder / f"{name}.key", folder / f"{name}.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def trusted(*public: Path) -> TrustedKeys:
    """Return the keys that a server trusts."""
    return TrustedKeys(",".join(map(str, public)))


def sign(private: Path, bundle: Path, model: str = "m", version: str = "1") -> str:
    """Return the signature of a bundle."""
    return Signer.read(private).sign(bundle, model, version)
