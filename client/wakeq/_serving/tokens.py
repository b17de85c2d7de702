"""The token that a server asks for: what one is, where it is read from, and whether a request has shown it."""

import base64
import binascii
from collections.abc import Mapping
from hmac import compare_digest
from pathlib import Path

TOKEN_MAX = 4_096


def check_token(token: str) -> None:
    """Raises ValueError unless a header can carry it (RFC 6750, 2.1)."""
    if not 1 <= len(token) <= TOKEN_MAX or not all("!" <= character <= "~" for character in token):
        raise ValueError(f"must have 1 to {TOKEN_MAX} characters, printable ASCII without spaces")


def read_token(file: Path) -> str:
    """What a file has that holds a token, and nothing else. Raises ValueError with a sentence."""
    try:
        token = file.read_text(encoding="utf-8").strip()
        check_token(token)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"the token can't be read from {file}: {reason}") from None
    return token


def is_shown(token: str, headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request shows it: as a bearer token, or as the password of who can only put it into a URL."""
    # In a time that tells nothing of how much of it is right.
    return compare_digest(_shown(headers.get(b"authorization", b"")), token.encode())


def _shown(authorization: bytes) -> bytes:
    scheme, _, value = authorization.partition(b" ")
    if scheme.lower() == b"bearer":
        return value.strip()
    if scheme.lower() != b"basic":
        return b""
    try:
        return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
    except binascii.Error:
        return b""
