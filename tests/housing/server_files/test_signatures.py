"""Which bundles are trusted: each byte of a bundle and of its signature counts."""

import itertools
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from housing.bundle.bundle import Bundle
from housing.core.errors import ConfigError, UntrustedError
from housing.server_files import releases
from housing.server_files.signatures import TrustedKeys
from housing.serving import publishing
from tests.support.signing_keys import new_key, sign, trusted

pytest.importorskip("model_signing", reason="the extra `sign` is not installed")

N_CHANGES = 1000


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    """A folder with a bundle."""
    bundle.write(tmp_path / "bundle")
    return tmp_path


def is_trusted(keys: TrustedKeys, bundle: Path, *signatures: str) -> bool:
    """Return whether a bundle is trusted as version 1 of model m."""
    try:
        return keys.verify(bundle, signatures, "m", "1") in signatures
    except UntrustedError:
        return False


def changed(content: bytes, random: np.random.Generator) -> bytes:
    """Return the content with one bit of one byte flipped."""
    position = int(random.integers(len(content)))
    return content[:position] + bytes([content[position] ^ 1 << int(random.integers(8))]) + content[position + 1 :]


def test_no_change_of_a_byte_of_the_bundle_or_the_signature_is_trusted(folder: Path) -> None:
    private, public = new_key(folder, "ann")
    bundle, keys, signature = folder / "bundle", trusted(public), sign(private, folder / "bundle")
    files = [path for path in sorted(bundle.rglob("*")) if path.is_file()]
    random, refused = np.random.default_rng(0), Counter[str]()
    for _, path in zip(range(N_CHANGES // 2), itertools.cycle(files)):
        content = path.read_bytes()
        path.write_bytes(changed(content, random))
        refused[path.name] += not is_trusted(keys, bundle, signature)
        path.write_bytes(content)
    assert sum(refused.values()) == N_CHANGES // 2 and len(files) > 8
    for _ in range(N_CHANGES // 2):
        text = changed(signature.encode(), random).decode("utf-8", errors="replace")
        refused["signature"] += not is_trusted(keys, bundle, text)
    assert refused["signature"] == N_CHANGES // 2
    for text in (
        f"{signature} ",
        f" {signature}",
        signature.replace(":", ": ", 1),
        signature.replace('"keyid":""', '"keyid":"a"'),
    ):
        assert text != signature and not is_trusted(keys, bundle, text)
    assert is_trusted(keys, bundle, signature)


@pytest.mark.parametrize("hint", [None, 1, [], {}])
def test_a_signature_without_a_fingerprint_does_not_hide_a_good_one(folder: Path, hint: object) -> None:
    private, public = new_key(folder, "ann")
    signature = sign(private, folder / "bundle")
    content = json.loads(signature)
    content["verificationMaterial"]["publicKey"]["hint"] = hint
    assert is_trusted(trusted(public), folder / "bundle", json.dumps(content, separators=(",", ":")), signature)


def test_files_that_are_added_removed_or_links_are_not_trusted(folder: Path) -> None:
    private, public = new_key(folder, "ann")
    bundle, keys, signature = folder / "bundle", trusted(public), sign(private, folder / "bundle")
    for name in (".gitignore", "features/0/extra"):
        (bundle / name).write_text("", encoding="utf-8")
        assert not is_trusted(keys, bundle, signature)
        (bundle / name).unlink()
    card = (bundle / "card.json").rename(folder / "card.json")
    assert not is_trusted(keys, bundle, signature)
    (bundle / "card.json").symlink_to(card)
    assert not is_trusted(keys, bundle, signature)
    (bundle / "card.json").unlink()
    shutil.copy(card, bundle)
    assert is_trusted(keys, bundle, signature)


def test_a_signature_is_valid_for_one_version_of_one_model_and_for_trusted_keys_only(folder: Path) -> None:
    (ann, ann_public), (bob, bob_public) = new_key(folder, "ann"), new_key(folder, "bob", ec.SECP384R1())
    bundle = folder / "bundle"
    of_ann, of_bob = sign(ann, bundle), sign(bob, bundle)
    for model, version in (("m", "2"), ("n", "1"), ("m", "11")):
        with pytest.raises(UntrustedError, match=f"^Version {version} of {model} is not trusted .* its signature is that of m:1"):
            trusted(ann_public).verify(bundle, [of_ann], model, version)
    with pytest.raises(UntrustedError, match="it is not signed. Sign it with: python -m housing.promote"):
        trusted(ann_public).verify(bundle, [], "m", "1")
    with pytest.raises(UntrustedError, match="it is signed with key [0-9a-f]{64}, which is none of [0-9a-f]{64}"):
        trusted(ann_public).verify(bundle, [of_bob], "m", "1")
    forged = of_bob.replace(
        json.loads(of_bob)["dsseEnvelope"]["payload"], json.loads(sign(bob, bundle, "x"))["dsseEnvelope"]["payload"]
    )
    assert forged != of_bob and not is_trusted(trusted(bob_public), bundle, forged)
    # a key takes over from another: both are trusted, the versions are signed again, then only the new one is trusted
    for keys, signatures, expected in (
        ((ann_public, bob_public), (of_ann,), True),
        ((ann_public, bob_public), ("damaged", of_bob), True),
        ((bob_public,), (of_ann, of_bob), True),
        ((bob_public,), (of_ann,), False),
    ):
        assert is_trusted(trusted(*keys), bundle, *signatures) == expected
    assert TrustedKeys("").verify(bundle, [], "m", "1") == ""


def test_the_command_of_model_signing_verifies_a_signature(folder: Path) -> None:
    from model_signing import verifying  # pylint: disable=import-outside-toplevel  # an extra

    private, public = new_key(folder, "ann")
    file = folder / "signature"
    file.write_text(sign(private, folder / "bundle"), encoding="utf-8")
    verifying.Config().use_elliptic_key_verifier(public_key=public).verify(folder / "bundle", file)


def test_a_release_is_trusted_only_as_what_it_says_it_is(folder: Path) -> None:
    private, public = new_key(folder, "ann")
    info, signature = {"model": "m", "version": "1", "alias": "staging"}, sign(private, folder / "bundle")
    publishing.publish(folder / "published", "1-run", folder / "bundle", info, signature)
    release, keys = folder / "published" / "1-run", trusted(public)
    with keys.verified(release, "m") as copy:
        assert Bundle.read(copy / releases.BUNDLE).card and copy != release
    with TrustedKeys("").verified(release, "m") as same:
        assert same == release
    with pytest.raises(UntrustedError, match="is of m, not of n"), keys.verified(release, "n"):
        pass
    for name, text in ((releases.RELEASE_FILE, '{"model": "m", "version": "2"}'), (releases.RELEASE_FILE, "[]")):
        content = (release / name).read_text(encoding="utf-8")
        (release / name).write_text(text, encoding="utf-8")
        with pytest.raises(UntrustedError), keys.verified(release, "m"):
            pass
        (release / name).write_text(content, encoding="utf-8")
    (release / releases.SIGNATURE_FILE).unlink()
    with pytest.raises(UntrustedError, match="it is not signed"), keys.verified(release, "m"):
        pass


def test_what_is_no_public_key_is_an_error_that_names_the_command(tmp_path: Path) -> None:
    private, _ = new_key(tmp_path, "ann")
    for files in (str(private), str(tmp_path / "missing.pem"), ","):
        with pytest.raises(ConfigError, match=r"serve.trusted_keys must be PEM files .* openssl pkey"):
            TrustedKeys(files)
    _, unusual = new_key(tmp_path, "unusual", ec.SECP256K1())
    with pytest.raises(ConfigError, match="must be a key on secp256r1"):
        TrustedKeys(str(unusual))
