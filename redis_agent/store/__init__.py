"""The only package that knows Redis: clients, key names, leases and typed wrappers over the scripts in lua/."""
