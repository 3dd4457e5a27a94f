"""The Auditor: records every event, so that tampering, loss and silence show.

It holds no key of a tenant and sees no payload. From pure to dirty: ``entries``, ``ledger`` and
``watch`` decide; ``journal``, ``stream`` and ``trust`` are the adapters; ``service`` puts them
together; ``__main__`` starts it.
"""
