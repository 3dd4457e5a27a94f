"""Requests that a Core answers: wrap and unwrap of Gateways, and those of operators."""
