"""The bus: a supervised connection, serving and asking, following streams, and audit emitting.

NATS carries messages and is trusted with nothing else.
"""
