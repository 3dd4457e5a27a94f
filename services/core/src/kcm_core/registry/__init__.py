"""The region's registry as its Cores maintain it: tenants, links and services."""
