"""Every default of the API server that an operator may set, once, with its unit.

A value comes from the command line, else the environment (`WAKEQ_APISERVER_PORT`), else from here.
"""

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from wakeq._serving.settings import Listed


class Settings(BaseSettings):
    """What an operator may set."""

    model_config = SettingsConfigDict(env_prefix="WAKEQ_APISERVER_", extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on. Beyond loopback, any host name is answered.")
    port: int = Field(4501, ge=0, le=65535, description="Port to listen on; 0 takes a free one and logs it.")
    token: SecretStr | None = Field(
        None, description="What a deploy from another host must show; without it, only this machine may deploy."
    )
    allowed_hosts: Listed = Field(
        (), description="Further host names, comma-separated, that requests may name while bound to loopback."
    )
