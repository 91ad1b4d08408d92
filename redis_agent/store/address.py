"""Where the server is: an address of its own, whatever Sentinel says is the master, or the nodes of a cluster."""

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

SCHEMES = frozenset({"redis", "rediss", "unix"})
_URL_OPTIONS = frozenset(
    {"db", "username", "password", "ssl_ca_certs", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_keyfile"}
    | {"ssl_check_hostname", "ssl_password"}
)
# Of a wrong part of an address, so many characters are shown.
_SHOWN_CHARACTERS = 60


HostPort = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Sentinels:
    """The Sentinel processes to ask, and about whom.

    Attributes:
        addresses: (host, port) of each; any of them may be down.
        master: the name under which they watch the master and its replicas.
        username, password: of the Sentinels themselves; "" where they ask for none.
    """

    addresses: tuple[HostPort, ...]
    master: str
    username: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        """For people: `mymaster (Sentinel a:26379, b:26379)`."""
        asked = ", ".join(f"{host}:{port}" for host, port in self.addresses)
        return f"{self.master} (Sentinel {asked})"


@dataclass(frozen=True, slots=True)
class Address:
    """A server.

    Attributes:
        url: as in REDIS_URL. May hold a password: never logged.
        sentinels: who knows the master; then the URL's host and port are not used, but its user, password, database
            and TLS options are.
        cluster: nodes of a Redis Cluster to ask for the others; then, too, of the URL only user, password and TLS
            options are used. Empty: none.
    """

    url: str = field(repr=False)
    sentinels: Sentinels | None = None
    cluster: tuple[HostPort, ...] = ()


def redacted_url(url: str) -> str:
    """Returns a Redis URL that may be shown: the password is replaced by `***`, the rest stays.

    Args:
        url: the URL, with or without credentials; what cannot be read as one is hidden whole.
    """
    try:
        parts = urlsplit(url)
        password = parts.password
        _ = parts.port  # a password with a bare slash in it shows up here, as a port that is none
    except ValueError:
        return "(unreadable URL)"
    if parts.scheme not in SCHEMES or "@" in parts.path:
        return "(unreadable URL)"
    netloc = parts.netloc
    if password is not None:
        netloc = f"{quote(parts.username or '')}:***@{netloc.rpartition('@')[2]}"
    elif parts.username:
        netloc = f"***@{netloc.rpartition('@')[2]}"  # a name alone is a password in the wrong place
    query = [(key, "***" if key in ("password", "ssl_password") else value) for key, value in parse_qsl(parts.query)]
    shown = urlunsplit((parts.scheme, netloc, parts.path, urlencode(query, safe="*/"), ""))
    # urlunsplit drops the empty host of unix:///path where there is no netloc.
    return shown if "://" in shown else shown.replace(":", "://", 1)


def secrets_in(url: str) -> tuple[str, ...]:
    """The passwords that a URL holds, wherever one can stand in it, as they are and percent-encoded."""
    try:
        parts = urlsplit(url)
        password = parts.password or ""
    except ValueError:
        return (url,)
    options = [value for name, value in parse_qsl(parts.query) if "password" in name]
    return tuple(dict.fromkeys(form for form in (password, unquote(password), *options) if form))


def fault_of_url(url: str) -> str:
    """Says what is wrong with a Redis URL, without repeating any of it, or returns ""."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "its host or port cannot be read (percent-encode special characters in a password)"
    if parts.scheme not in SCHEMES or "://" not in url:
        return "it has another scheme"
    for option, value in parse_qsl(parts.query, keep_blank_values=True):
        # The others would change how the agent talks to Redis, or are none.
        if option not in _URL_OPTIONS:
            return f"its option {option[:_SHOWN_CHARACTERS]!r} is none of {', '.join(sorted(_URL_OPTIONS))}"
        if option == "db" and not value.isdecimal():
            return "its option 'db' must be the number of a database"
    if parts.scheme == "unix":
        return "" if parts.path.strip("/") else "it names no socket"
    if not parts.hostname:
        return "it names no host"
    if port == 0:
        return "its port is 0"
    database = parts.path.strip("/")
    if database and not database.isdecimal():
        return "what follows the host must be the number of a database"
    return ""


def host_ports(text: str) -> tuple[HostPort, ...]:
    """Reads "host:port, host:port"; [::1]:26379 is one, too.

    Raises:
        ValueError: says which part is no address.
    """
    found = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        try:
            parts = urlsplit(f"//{part}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or not port or parts.netloc != part or "@" in part:
            shown = f"***@{part.rpartition('@')[2]}" if "@" in part else part  # a password in the wrong place
            raise ValueError(f"{shown[:_SHOWN_CHARACTERS]!r} is no host:port")
        found.append((host, port))
    return tuple(found)
