"""What a user says of a server that speaks OpenAI's protocol: its address with a model's name, further fields of requests."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

from sanactl.errors import UsageError
from sanactl.files.json_values import parse_json

__all__ = ["address_hint", "extra_fields", "read_address"]


def address_hint(base: str) -> str | None:
    """What may be wrong with a base address whose replies are not those of the protocol; None where it looks right."""
    ends_well = urlsplit(base).path.endswith("/v1")
    return None if ends_well else "the address ends in /v1 on most servers"


def extra_fields(text: str) -> dict[str, Any]:
    """The further fields of each request from the text of a JSON object; none for an empty text.

    Raises:
        UsageError: it is no JSON object, or sets what the caller itself sets.
    """
    if not text:
        return {}
    try:
        fields = parse_json(text)
    except ValueError as error:
        raise UsageError(f"extra is {text[:60]!r}, and no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise UsageError(f"extra is {text[:60]!r}", hint="it takes a JSON object")
    if "model" in fields or "messages" in fields:
        raise UsageError(
            "extra sets the model or the messages", hint="the model stands after # in the address"
        )
    return fields


def read_address(address: str) -> tuple[str, str]:
    """(the server's base address, the model's name) of `http(s)://host[:port]/v1#model`.

    Raises:
        UsageError: it is no such address.
    """
    form = "give http(s)://host[:port]/v1#model"
    try:
        found = urlsplit(address)
        port = found.port
    except ValueError as error:
        raise UsageError(f"{address!r}: {error}", hint=form) from None
    if found.scheme not in ("http", "https") or not found.hostname or port == 0:
        raise UsageError(f"{address!r} is not the address of a server", hint=form)
    if found.username is not None or found.password is not None:
        raise UsageError(
            "the server's address has a user or password in it, which records would show",
            hint="put the key into an environment variable (key_env)",
        )
    if not found.fragment:
        raise UsageError(f"{address}: names no model", hint=form)
    base = urlunsplit((found.scheme, found.netloc, found.path.rstrip("/"), found.query, ""))
    return base, found.fragment
