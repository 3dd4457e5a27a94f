"""The customer's root key: a reference to it, and one adapter for each kind of provider.

All other modules of ``providers`` run in a short-lived child of the unsealer, never in the process
that holds keys. ``state`` and ``uri`` are pure and may be imported anywhere.
"""
