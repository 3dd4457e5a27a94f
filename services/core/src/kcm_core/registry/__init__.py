"""The region's registry as its Cores keep it: tenants, links and services."""
