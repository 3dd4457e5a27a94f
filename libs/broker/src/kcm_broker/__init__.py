"""Who may connect to a broker, and what each client may send and receive there.

A region's broker trusts one key, the *broker operator*. It signs the accounts, and each account has
a *scope* for each role or instance: a signing key with a template of rights (``rights`` has the
table). Such a key signs the users: ``claims`` has the formats and ``credentials`` the file that a
client connects with. The broker itself is not changed for a new client. ``resolver`` brings a
changed account, for example with a revocation, to every node.

An operator in the broker's claims is that key, and not a person who signs orders.
"""
