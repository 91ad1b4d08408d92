"""The errors that the agent raises on purpose, as one small tree.

A message is written for the person who runs the agent: one line where one line can say it, and
never a secret in it.
"""


class AgentError(Exception):
    """Something the agent knows how to explain: the message is fit to be shown as it is."""


class ConfigError(AgentError):
    """Settings are wrong; the message has one line for each wrong variable. Not worth a retry."""


class ServerError(AgentError):
    """A private Redis-compatible server cannot be found, started or kept running."""


class EndpointError(AgentError):
    """The HTTP endpoint cannot listen where it was told to."""


class RedisAccessError(AgentError):
    """Redis answers but does not let us in: wrong password, no permission. Trying again does not help."""


class DurabilityError(AgentError):
    """The server cannot promise what REDIS_AGENT_DURABILITY asks for. Trying again does not help."""


class PubsubError(AgentError):
    """The bridges in Redis hear by another kind of pub/sub, or the server has none. Trying again does not help."""


class PartitionsError(AgentError):
    """What is in Redis is of another number of partitions than is asked for. Trying again does not help."""
