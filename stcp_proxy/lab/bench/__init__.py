"""The benchmark: pairs of proxies on loopback, measured in turns within the same minutes.

- ``rows``      the measurements
- ``certs``     a certificate authority for the peers that need one
- ``peer``      one kind of tunnel, and the place of a pair
- ``peers``     the tunnels in the comparison; ``other_tunnels`` has the tunnels of other projects
- ``pair``      a running pair: its processes, their CPU time and memory
- ``measure``   the rounds; samples of every row and peer
- ``figures``   from samples to results: medians, ratios, targets
- ``table``     tables on a terminal
- ``report``    JSON and Markdown; ``plots`` draws with matplotlib
- ``growth``    how cost grows with connections and with payload
"""
