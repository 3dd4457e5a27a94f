"""``kcm doctor``, which this distribution adds to the ``kcm`` command."""
