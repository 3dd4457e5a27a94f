"""Hints that something happened to a customer's key: each is a reason to ask the key at once.

A hint proves nothing and decides nothing: whoever could forge one could make a Core ask a key a
second earlier. Off unless it is configured.
"""
