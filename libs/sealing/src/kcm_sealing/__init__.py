"""The ciphers between components: XAES-256-GCM, HPKE, and the sealed session built on both.

``xaes``     AES-256-GCM with 192-bit nonces (C2SP)
``hpke``     RFC 9180 with the hybrid KEM MLKEM768-X25519
``session``  tickets, and the two keys of a session
``replay_window``  the counters that a session has accepted

The caller provides the memory for keys (``kcm_sealing.memory``); this package allocates none.
"""
