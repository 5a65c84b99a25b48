"""Sockets before and outside of a connection's encryption.

- ``address``  what a user writes for an address, and what a log says for one
- ``pattern``  which addresses and ports a rule is about
- ``listen``   bound and listening sockets for an address
- ``activation``  listening sockets that a service manager opened before
- ``names``    what is behind an address: names looked up once for everybody, kept for a time
- ``nameserver``  name servers asked directly, for SRV records among others
- ``dial``     a connected socket for one concrete address
- ``original``  where an application was going before its connection was intercepted
- ``own``      what this process dials itself, never to be intercepted
- ``proxy_header``  the PROXY protocol's header, both versions, written and read
- ``stream``   a Trio stream over a socket that is going to be handed on
- ``special``  addresses that are dangerous to dial, or to believe, on somebody's word
- ``transparent``  dialling from a client's own address
- ``zone``     the interface of a link-local IPv6 address
- ``tuning``   the socket options of both legs
"""
