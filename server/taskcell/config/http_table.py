"""The table `[http]`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from taskcell.addresses import base_address, http_address
from taskcell.config.fields import Bytes, Count, Table, Word, Words, plain_path
from taskcell.model import MIB


class HttpSettings(Table):
    """`[http]`: serving over streamable HTTP. `port` 0 takes any free one."""

    host: Word = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8765
    public_url: Word = ""
    peer_url: Word = ""
    allowed_hosts: Words = ()
    allowed_origins: Words = ()
    tokens_file: Word = ""
    issuer: Word = ""
    audience: Word = ""
    jwks_url: Word = ""
    max_concurrent_calls: Count = 64
    max_calls_per_principal: Count = 16
    calls_per_minute: Count = 600
    max_body: Bytes = 16 * MIB

    @field_validator("tokens_file")
    @classmethod
    def _path_is_plain(cls, value: str) -> str:
        return plain_path(value)

    @field_validator("peer_url")
    @classmethod
    def _is_a_base(cls, value: str) -> str:
        return value and base_address(value)

    @field_validator("public_url", "jwks_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        return value and http_address(value)
