"""A Core's keys (L2, L3): open in locked memory, and wrapped in two stores."""
