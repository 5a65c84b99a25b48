"""A tunnel while it serves: its listeners, its limits, its live connections; and all tunnels of a process.

- ``tunnel``           one tunnel: sessions for what it accepts, and the step from one plan to the next
- ``acceptor``         its listening sockets and limits
- ``connections``      its live connections; ``unauthenticated`` those whose peer has proved nothing, and which loses its place
- ``quick_start``      a session in the engine's loop, until it needs a task
- ``listener_watch``   a listening socket in the engine's loop; ``leg_watch`` a wire leg at rest there
- ``lobby``            accepted connections of a listen tunnel without a first message; ``caller`` is one of them,
  ``lobby_watch`` the engine's loop as their driver, ``fair_places`` shares their places
- ``replays``          first messages that were answered lately
- ``peer_limits``      the limits of each peer: live connections, and new connections a second
- ``lifetimes``        connections end after ``max_lifetime``
- ``idle_legs``        its wire legs between their connections; ``ready_legs`` makes some ahead
- ``descriptors``      the limit that all tunnels share: how many connections this process has file descriptors for
- ``revocation``       connections end whose key was taken out of the file
- ``upstreams``        its targets by every way that leads to them, their health checks, and readiness
- ``tunnels``          all tunnels of a process, and the step from one plan to the next; ``listener_handover`` which listening
  sockets stay and which change hands
- ``engines``          the engines that carry their connections
"""
