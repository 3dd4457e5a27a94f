"""What every Core and every Gateway runs: apply holds, renew leases, confirm by receipts."""
