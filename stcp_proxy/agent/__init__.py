"""The agent of kernel sockets (`socket(AF_INET, SOCK_STREAM, 253)`): the module moves the bytes, the agent does the handshakes.

- ``agent``        takes pending handshakes, one task each; its limits and log lines
- ``places``       who loses its place when too many handshakes are under way
- ``handshakes``   the two roles of one handshake, by the code of the tunnels
- ``policy``       which socket may use which identity and have which peer
- ``results``      the errno of each failure
- ``netlink``      generic netlink to the module; ``messages`` what they say to each other
- ``netlink_abi``  the numbers of kernel/stcp.h
"""
