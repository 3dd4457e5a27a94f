"""Whom to believe: identities, the roster, and statements that are verified before they count.

Pure: no network, no clock. Verification returns the verified thing or raises.
"""
