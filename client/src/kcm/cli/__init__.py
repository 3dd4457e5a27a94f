"""The ``kcm`` command.

Modules here import click and the standard library when they are loaded, and everything else inside
the command that needs it: ``--help`` loads no network client and no cryptography.
"""
