"""JSON files in a state directory: an object with its format's version, replaced as a whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kcm_runtime.config import ConfigError
from kcm_runtime.files.atomic import place


def read_state(path: Path, version: int, remedy: str) -> dict[str, Any] | None:
    """Return the object in a file of this version, or ``None`` if there is no file.

    Raises ``ConfigError``, which ends with ``remedy``, for any other file. Nothing of a file of
    another version, or of none, is used.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise damaged(path, remedy) from None
    if not isinstance(content, dict):
        raise damaged(path, remedy)
    found = content.get("version")
    if type(found) is not int or found != version:
        what = "no version" if found is None else "another version"
        text = f"{path} has {what} of its format: this program reads {version}"
        raise ConfigError(f"{text}; use the program that wrote it, or {remedy}")
    return content


def damaged(path: Path, remedy: str) -> ConfigError:
    """Return the error for a file whose content is not valid."""
    return ConfigError(f"{path} is damaged: {remedy}")


def write_state(path: Path, version: int, content: Mapping[str, object]) -> None:
    """Replace a file, durable when this returns; raises ``OSError``."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    place(path, json.dumps({"version": version, **content}).encode())
