"""Build the documentation's pages: ``make docs``. A warning is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import kcm
from kcm_schemas.version import VERSION
from sphinx.util import logging

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "kcm"
author = "the kcm authors"
project_copyright = "%Y, the kcm authors"
release = version = VERSION

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
suppress_warnings = ["myst.header"]  # a page may skip a level of headings
myst_heading_anchors = 4  # links to headings are checked, down to this level
html_theme = "furo"
html_title = f"kcm {VERSION}"

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True

_log = logging.getLogger(__name__)


def setup(app: Sphinx) -> None:
    """Register the check of the API reference."""
    app.connect("env-check-consistency", _check_reference)


def _check_reference(_app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of each public name of the SDK that no page documents."""
    documented = env.domains.python_domain.objects
    for name in kcm.__all__:
        if name != "__version__" and f"kcm.{name}" not in documented:
            _log.warning("kcm.%s is public, and no page documents it", name)
