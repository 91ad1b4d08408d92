"""What `redis-agent demo` runs: a private server, all roles, four simulated experiments, and somebody who listens."""
