"""The Gateway: generates data keys, and encrypts and decrypts next to the applications.

``Gateway`` is a library that an application can embed; ``python -m kcm_gateway`` is the same engine
on the bus. It handles payloads and data keys (L4), and never holds a tenant root or a service key.
"""
