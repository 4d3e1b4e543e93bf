"""Where a connection may lead that somebody else names, such as a customer: against SSRF.

A name is looked up once, each address of the answer is judged, and the connection is made to one of
the very addresses that were judged: who answers the look-up differently the next time (DNS
rebinding) gains nothing. TLS and Host stay by name. One address that is refused refuses the name,
as an answer may mix them. However an address is spelled (`2130706433`, `0x7f.1`, with a dot at the
end), the look-up makes a plain one of it, and that is what is judged.

What counts as public stands here as a table and does not depend on the version of Python, whose
`is_global` has changed. Limits: a NAT64 prefix of a network's own is an ordinary public address
here, so where one leads to inner addresses, the network has to keep them apart.

Nothing here connects, and nothing here knows HTTP, gRPC or OTLP.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Sequence[str]]
"""The addresses of a host, for a port, as text. Raises OSError, UnicodeError."""

# IANA's registries of special-purpose addresses, and what is no unicast. Of parts of a network that
# a registry calls reachable (192.0.0.9, 2001:20::/28) none is a place for an endpoint.
_INNER_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network, unspecified
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # between a provider and its customers
            "127.0.0.0/8",  # loopback
            "169.254.0.0/16",  # link-local, among them the metadata of clouds
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocols
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",  # private
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, broadcast
        ),
    )
)
_UNICAST_6 = IPv6Network("2000::/3")
"""All of IPv6 that is given out for the Internet: loopback, link-local, site-local, unique local
addresses, multicast, `::a.b.c.d` and the local NAT64 prefix (64:ff9b:1::/48) lie outside."""
_INNER_6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocols, among them Teredo, which embeds two IPv4 addresses
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4, which embeds one
            "3fff::/20",  # documentation
        ),
    )
)
_EMBEDDING_6 = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))
"""IPv4 within IPv6, and NAT64: as good as the IPv4 address in the last 32 bits."""
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)
"""What stands before an IPv4 address that a tunnel within a site leads to."""


class Refused(Exception):
    """The policy forbids the connection, in words, which name no address: it would tell a customer
    about the inner network."""


def is_public(address: Address) -> bool:
    """Whether it is an ordinary address of the Internet."""
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return False
        if not any(address in network for network in _EMBEDDING_6):
            return (
                address in _UNICAST_6
                and not any(address in network for network in _INNER_6)
                and int(address) >> 32 & 0xFFFF_FFFF not in _ISATAP
            )
        address = IPv4Address(int(address) & 0xFFFF_FFFF)
    return not any(address in network for network in _INNER_4)


def look_up(host: str, port: int) -> list[str]:
    """The addresses of a name, as the operating system says, which also bounds the time of it.
    Raises OSError, UnicodeError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [host if "%" in host else str(entry[4][0]) for entry in found]


@dataclass(frozen=True, slots=True)
class OutboundPolicy:
    """What is asked of endpoints that somebody else names."""

    https_only: bool = False
    """TLS, whose certificate is checked."""
    public_only: bool = False
    """Addresses of the Internet, no inner ones."""
    resolve: Resolve = field(default=look_up, repr=False)
    public: Callable[[Address], bool] = field(default=is_public, repr=False)

    def __bool__(self) -> bool:
        return self.https_only or self.public_only

    def addresses(self, host: str, port: int) -> list[str]:
        """The addresses to connect to, each of them judged. Raises Refused, OSError,
        UnicodeError."""
        found = list(self.resolve(host, port))
        if self.public_only and not all(map(self._allowed, found)):
            raise Refused(
                f"refused by destinations_policy: {host} leads to an address that is not public"
            )
        return found

    def _allowed(self, text: str) -> bool:
        try:
            return self.public(ip_address(text))
        except ValueError:
            return False
