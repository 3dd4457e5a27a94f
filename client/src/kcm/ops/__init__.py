"""Operations of production systems: provisioning a region, and changes of the roster.

The ``kcm`` command and the development system call them. They report progress through callbacks and
raise ``OperationError``, which has an exit code and a hint.
"""
