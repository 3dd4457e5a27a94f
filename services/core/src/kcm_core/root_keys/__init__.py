"""Customers' root keys (L1): link validation, monitoring, and the holds that a refusal causes."""
