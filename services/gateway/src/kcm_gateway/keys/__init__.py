"""Data keys (L4): made in advance, looked up, unwrapped by a Core, wiped."""
