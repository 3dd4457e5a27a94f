"""Hints that something happened to a customer's key: each is a reason to probe the key at once.

A hint proves nothing and decides nothing: a forged one can only make a Core probe a key a second
earlier. There are no listeners unless they are configured.
"""
