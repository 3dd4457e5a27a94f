"""Errors while the files of a deployment are made."""

from __future__ import annotations

from kcm.ops.errors import OperationError


class DeploymentError(OperationError):
    """The files cannot be made as they were asked for."""

    code = "deployment"
    hint = "correct what the text names, then repeat the command: files that exist are kept"
