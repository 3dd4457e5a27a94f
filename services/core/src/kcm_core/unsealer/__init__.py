"""The unsealer: a fork server without keys, whose children call the L1 and then end.

``client`` is the Core's side, and ``port`` its interface; ``server`` and ``worker`` run on the
other side of the socket. Cloud SDKs and PKCS#11 modules are imported only there, never in the
process that holds an L2 (``import_guard`` enforces that).
"""
