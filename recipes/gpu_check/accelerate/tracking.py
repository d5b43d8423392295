"""There are no trackers here."""

from __future__ import annotations

from typing import Any

__all__ = ["LOGGER_TYPE_TO_CLASS", "get_available_trackers"]

LOGGER_TYPE_TO_CLASS: dict[str, Any] = {}


def get_available_trackers() -> list[str]:
    return []
