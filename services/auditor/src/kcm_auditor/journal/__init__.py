"""The journal: append-only files whose lines are chained by their hashes.

``format`` describes the lines, ``writer`` writes them, and ``verify`` verifies a directory offline;
each file is named after the number of its first entry.
"""
