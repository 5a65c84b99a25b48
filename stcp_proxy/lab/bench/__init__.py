"""The benchmark: pairs of proxies on loopback, measured in turns within the same minutes.

- ``rows``      what is measured
- ``certs``     a certificate authority for the peers that need one
- ``peer``      one kind of tunnel, and the place of a pair
- ``peers``     the tunnels that are compared; ``other_tunnels`` configures those of others
- ``pair``      a running pair: its processes, their CPU time and memory
- ``measure``   the rounds; samples of every row and peer
- ``figures``   medians, ratios, targets: from samples to statements
- ``table``     the terminal's tables
- ``report``    JSON and Markdown; ``plots`` draws with matplotlib
- ``growth``    how cost grows with connections and with payload
"""
