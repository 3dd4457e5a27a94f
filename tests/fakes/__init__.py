"""Fakes that implement the production ports, as strict as the real thing."""
