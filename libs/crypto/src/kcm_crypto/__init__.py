"""Context, XAES-256-GCM, locked arenas and the sealed channel.

What the Core and the Gateway both need to handle keys; no network, no policy.
"""
