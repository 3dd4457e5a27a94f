"""Families of test vectors: one module makes one or two files of them."""
