"""A tunnel while it serves: its listeners, its limits, its live connections; and all tunnels of a process.

- ``service``          one tunnel: listeners, limits, live connections
- ``unauthenticated``  its connections that have proved nothing yet, and which of them gives up its place first
- ``tunnels``          all tunnels of a process, and the step from one plan to the next
- ``engines``          the engines that carry their connections
"""
