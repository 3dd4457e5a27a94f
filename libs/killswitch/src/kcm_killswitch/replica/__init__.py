"""The part of the kill switch that every Core and Gateway runs: holds, leases and receipts."""
