"""The Auditor: records every event, so that tampering, loss and silence become visible.

It holds no key of a tenant and sees no payload. ``chain_checker``, ``positions`` and ``liveness``
decide without I/O. ``ingest``, ``journal`` and ``heads`` are the adapters, ``recorder`` connects
both, ``service`` assembles the component and ``__main__`` starts it.
"""
