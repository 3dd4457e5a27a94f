"""Trust: identities, the roster, and the verification of every signed statement.

Pure: no network, no clock. Verification returns the verified thing or raises.
"""
