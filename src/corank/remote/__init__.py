"""A latency table for a device far away, which needs neither torch nor corank."""
