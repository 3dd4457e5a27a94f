"""The checks: each is a pure function over facts that are handed in."""
