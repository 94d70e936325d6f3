"""The Ed25519 key that signs exported evidence: a file that only its owner can read."""

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from flowledger.config import Settings
from flowledger.errors import ConfigError, NotFound

__all__ = ["is_signed", "key_path", "load_key", "make_key", "public_text"]

OWNER_ALONE = 0o600
LARGEST_KEY = 10_000


def key_path(settings: Settings) -> Path:
    """Where the private key is."""
    return Path(settings.signing_key or Path(settings.home, "signing.pem"))


def make_key(path: Path) -> Ed25519PrivateKey:
    """Make a key and write it, for its owner alone; one that is there is not touched.

    Raises:
        ConfigError: there is a file already, or it cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ALONE)
        with os.fdopen(fd, "wb") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{path} is there already: keep it, or name another file") from None
    except OSError as exc:
        raise ConfigError(f"{path} cannot be written: {exc.strerror}") from exc
    return key


def load_key(path: Path) -> Ed25519PrivateKey:
    """The private key in a file.

    Raises:
        NotFound: there is none.
        ConfigError: others may read it, or it is no such key.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"others may read the key {path}: chmod 600 it, or make another")
        key = serialization.load_pem_private_key(path.read_bytes()[:LARGEST_KEY], password=None)
    except FileNotFoundError:
        raise NotFound(
            f"there is no signing key {path}: `flowledger keys signing` makes one"
        ) from None
    except (OSError, ValueError, TypeError) as exc:
        raise ConfigError(f"{path} is no private key that can be read: {exc}") from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} is no Ed25519 key: `flowledger keys signing` makes one")
    return key


def public_text(key: Ed25519PrivateKey) -> str:
    """The public key, as 64 hexadecimal characters."""
    return key.public_key().public_bytes_raw().hex()


def is_signed(public_key: str, signature: str, data: bytes) -> bool:
    """Whether the holder of that key signed the data."""
    if not (_hex(public_key, 32) and _hex(signature, 64)):
        return False
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(signature), data)
    except (ValueError, InvalidSignature):
        return False
    return True


def _hex(text: str, size: int) -> bool:
    """Whether it is so many bytes in the one form that they are written in."""
    return len(text) == 2 * size and set(text) <= set("0123456789abcdef")
