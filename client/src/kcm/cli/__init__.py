"""The ``kcm`` command: one module for each group of commands, and what they share.

``main`` has all groups and the only handler of errors. ``settings`` has the options that every
command takes, ``output`` shows results as tables or JSON, and ``error_report`` explains errors with
an exit code and a hint. Commands decide nothing about keys: they call ``kcm._internal`` and
``kcm.ops``.

At import, a module here loads click and the standard library only. A command imports the rest when
it runs, so ``--help`` loads no network client and no cryptography.
"""
