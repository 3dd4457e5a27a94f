"""What one application notices of the flood of another one."""
