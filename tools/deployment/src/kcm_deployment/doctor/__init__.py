"""``kcm doctor``: what a machine and its brokers are like, and what is wrong with it.

``examination`` runs the checks of a ``plan``, which is read from a configuration or a context. The
modules of ``checks`` decide, from facts that the others read.
"""
