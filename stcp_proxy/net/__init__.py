"""Sockets before and outside of a connection's encryption.

- ``address``  what a user writes for an address, and what a log says for one
- ``listen``   bound and listening sockets for an address
- ``dial``     a connected socket for a list of addresses: resolve, try all, one deadline
- ``tuning``   the socket options of both legs
"""
