"""Sockets before and outside of a connection's encryption.

- ``address``            addresses as users write them and logs show them
- ``zone``               the interface of a link-local IPv6 address
- ``pattern``            rules about addresses and ports
- ``special_addresses``  addresses that it is dangerous to dial, or to believe, on a stranger's word
- ``listen``             listening sockets for an address
- ``unix_socket``        listening unix sockets and their files
- ``fd_records``         records with descriptors between processes of this machine
- ``peer_credentials``   which process is at the other end of a unix socket
- ``listen_error``       why an address cannot be listened on, and what to do
- ``socket_activation``  listening sockets that a service manager opened
- ``name_cache``         host names and SRV names, looked up once for all connections and kept for a time
- ``dns_settings``       how names are looked up
- ``cached_answer``      one entry of that cache
- ``dns_client``         questions to name servers, where the system's resolver cannot ask them
- ``dial``               a connected socket for one resolved address
- ``shortage``           descriptors, memory and ports that this machine lacks
- ``path_mtu``           whether the path to the other end loses large packets
- ``transparent``        connections from a client's own address
- ``own_connections``    connections that this process makes, which no rule may intercept
- ``original``           the destination of an intercepted connection
- ``rules_sign``         which rules of interception are installed, asked without privilege
- ``proxy_header``       the PROXY protocol's header, both versions, written and read
- ``leg_stream``         a Trio stream over a socket that is going to be handed over
- ``first_steps``        where a session may wait before it has a task
- ``source``             the source of a connection: its host and its network, by which strangers are counted
- ``token_buckets``      rates by key, in bounded memory
- ``socket_options``     the socket options of both legs
"""
