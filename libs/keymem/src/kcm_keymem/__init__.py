"""Locked memory for keys. Only the Core and the Gateway depend on it.

``arena``  the only place where a key is held: ``Arena``, ``Keys``, ``Purged``
``pages``  locked pages from the kernel, and key material from its random number generator
"""
