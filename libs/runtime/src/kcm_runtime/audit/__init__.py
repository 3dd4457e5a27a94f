"""Audit events: the emitter, the chain over events, and the region's audit stream."""
