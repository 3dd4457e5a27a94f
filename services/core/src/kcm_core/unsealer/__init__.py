"""The unsealer: a fork server without keys, whose children call the L1 and then end.

``client`` is what the Core holds, ``port`` what its service layer asks for; ``server`` and
``child`` run on the other side of the socket. Cloud SDKs and PKCS#11 modules are imported there
only, never in the process that holds an L2 (``guard`` sees to it).
"""
