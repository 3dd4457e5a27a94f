"""Files that are written atomically, and secrets that only their owner may read."""
