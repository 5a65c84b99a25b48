"""After the handshake: one engine interface and its engines.

- ``engine``     the interface, the handover, and the laws that every engine keeps
- ``pump``       the user-space engine: one thread, one epoll set, shared buffers
- ``inloop``     the pump driven by Trio's own thread
- ``duplex``     one connection inside it: both directions, from handover to close
- ``native``     its short way for what is common, in C (``lane/``), where that was built
- ``deadlines``  its timers
- ``kernel``     the kernel engine: stcp.ko carries the connection, and what it cannot take falls back to the pump
- ``kernel_abi`` the module's interface in numbers
- ``standstill`` why a leg takes no bytes, and who is to end it
- ``choice``     which engine a tunnel gets
"""
