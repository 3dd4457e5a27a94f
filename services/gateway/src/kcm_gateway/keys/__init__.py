"""Data keys (L4): generated in advance, looked up, unwrapped by a Core, wiped."""
