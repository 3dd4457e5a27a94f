"""What thousands of tenants cost: lists, making, opening, purges, and uses of customers' keys."""
