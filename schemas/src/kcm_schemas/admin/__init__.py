"""Operator to Core: every request is signed, and every reply too.

A Core signs its replies because otherwise a broker could tell an operator that a kill is complete.
"""
