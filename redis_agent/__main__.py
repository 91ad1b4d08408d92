"""`python -m redis_agent` is the same program as `redis-agent`."""

from redis_agent.cli import main

if __name__ == "__main__":
    main(prog_name="redis-agent")
