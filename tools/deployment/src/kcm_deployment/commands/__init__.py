"""``kcm init``, ``kcm broker`` and ``kcm doctor``, which this distribution adds to ``kcm``."""
