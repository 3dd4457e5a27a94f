"""The requests that a Core answers: wrap and unwrap for Gateways, and operators' requests."""
