"""The customer's root key: a reference to it, and one adapter for each kind of place it lives in.

Everything below ``providers`` runs in a short-lived child of the unsealer, never in the process
that holds keys. ``state`` and ``uri`` are pure and may be imported anywhere.
"""
