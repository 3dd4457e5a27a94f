"""Sealed sessions between a caller and one instance, over a broker that neither trusts.

The callee: ``session_keys`` makes and signs the keys that an incarnation offers, ``sessions`` has
the sessions that callers opened with it, and ``sealed_bodies`` opens whole requests. The caller:
``session_opener`` opens a session, and ``peer_sessions`` holds sessions with two instances and
chooses between them.
"""
