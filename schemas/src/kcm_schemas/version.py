"""The one version of all distributions: every pyproject.toml reads it from here."""

from typing import Final

VERSION: Final = "0.1.0"
