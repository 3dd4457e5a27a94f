"""The factory: makes data keys and encrypts at speed, beside the applications.

``Gateway`` is a library that an application can embed; ``python -m kcm_gateway`` is the same engine
on the bus. It knows payloads and data keys (L4); it can never hold a tenant root or a service key.
"""
