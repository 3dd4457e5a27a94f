"""Locked memory for keys. Only the Core and the Gateway depend on it.

``arena``  the only place where a key is held: ``Arena``, ``Keys``, ``Purged``
``slots``  many small secrets in few arenas
``page_source``  the choice between secret pages (``secret_pages``) and locked ones (``pages``)
``secure_memory``  which protection there is, for logs and monitoring
``random``  key material from the kernel's random number generator
"""
