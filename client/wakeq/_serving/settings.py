"""Kinds of settings that several servers have."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, SecretStr, ValidationInfo
from pydantic_settings import NoDecode

from wakeq._serving.tokens import check_token, read_token


def _listed(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _sendable(value: SecretStr | None) -> SecretStr | None:
    if value is not None:
        check_token(value.get_secret_value())
    return value


Listed = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]
"""Several, with commas between them."""
Token = Annotated[SecretStr | None, AfterValidator(_sendable)]
"""What a header can carry."""


def only_file(file: Path | None, info: ValidationInfo, variable: str) -> Path | None:
    """A token's file, where the setting ``token`` is not given too. Raises ValueError."""
    if file is not None and info.data.get("token") is not None:
        raise ValueError(f"there is a token already, given by --token or {variable}")
    return file


def given_token(token: SecretStr | None, file: Path | None, refuse: Callable[[str, str], Exception]) -> str | None:
    """The token that requests must show; None where they needn't.

    Where the file has none, raises what ``refuse`` makes of a sentence and a hint.
    """
    if file is None:
        return None if token is None else token.get_secret_value()
    try:
        return read_token(file)
    except ValueError as error:
        raise refuse(str(error), "--token-file names a file that holds the token, and nothing else") from None
