"""``kcm dev`` and ``kcm demo``, which this distribution adds to the ``kcm`` command."""
