"""Files: written whole or not at all, and secrets that only their owner may read."""
