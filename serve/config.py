"""Configuration of the service."""

import ipaddress
import os
from pathlib import Path

from pydantic import Field

from lexray.errors import ConfigError
from lexray.runtime.config import BaseConfig, RayConfig

#: Requests a minute and caller where the service listens beyond this machine and nothing else was asked for.
DEFAULT_REQUESTS_PER_MINUTE = 600


class Limits(BaseConfig):
    """What one request, and one caller, may ask for."""

    max_body_mib: float = Field(64.0, gt=0, description="largest request body, in MiB")
    max_k: int = Field(100, ge=1, description="most sources of one search")
    max_texts: int = Field(2048, ge=1, description="most texts of one embeddings request")
    max_text_length: int = Field(100_000, ge=1, description="most characters of one text")
    max_events: int = Field(2_000_000, ge=1, description="most photons of one observation")
    requests_per_minute: int | None = Field(
        None, ge=0, description="of one caller; 0 is no limit; by default none on loopback, else 600"
    )


class ServeConfig(BaseConfig):
    """Keys of `lexray serve`."""

    release: str = Field(description="folder of the release")
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    replicas: int = Field(1, ge=1, description="processes that hold the models")
    threads: int = Field(0, ge=0, description="torch threads a replica; 0 shares the CPUs among the replicas")
    api_key_file: str | None = Field(
        None, description="file of API keys, one a line; LEXRAY_API_KEYS (separated by commas) adds to them"
    )
    haproxy: bool = Field(True, description="put HAProxy in front where it is installed")
    limits: Limits = Limits()
    ray: RayConfig = RayConfig()

    @property
    def requests_per_minute(self) -> int:
        """Requests a minute and caller; 0 is no limit."""
        default = 0 if self.is_loopback else DEFAULT_REQUESTS_PER_MINUTE
        return default if self.limits.requests_per_minute is None else self.limits.requests_per_minute

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def api_keys(config: ServeConfig) -> tuple[str, ...]:
    """Keys that callers may show; none means that no key is asked for.

    Raises
    ------
    ConfigError
        If the file cannot be read or holds no key: a service that was meant to be locked must not start open.
    """
    keys = [key.strip() for key in os.environ.get("LEXRAY_API_KEYS", "").split(",") if key.strip()]
    if config.api_key_file is None:
        return tuple(keys)
    try:
        lines = Path(config.api_key_file).expanduser().read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"api_key_file: {config.api_key_file}: {error.strerror}") from None
    from_file = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not from_file:
        raise ConfigError(f"api_key_file: {config.api_key_file}: holds no key; write one a line")
    return tuple(keys + from_file)
