"""Relay of connections after the handshake: one engine interface and its engines.

- ``engine``         the interface, the handover, and the invariants that every engine keeps
- ``pump``           the user-space engine: one thread, one epoll set, shared buffers
- ``trio_loop``      run the pump in Trio's own thread
- ``duplex``         one connection inside the pump: act when a leg has news
- ``connection``     the state of such a connection, and what it needs of the pump
- ``plain_to_wire``  move bytes up: read, seal, send
- ``wire_to_plain``  move bytes down: receive, open, deliver
- ``ends``           end a connection: finish, reset, lose, close
- ``timeouts``       idle and half-close deadlines, and looks at stalled legs
- ``states``         the states of such a connection, as a table
- ``fast_path``      load the part of the pump in C (``lane/``), which handles DATA frames without the interpreter
- ``held_bytes``     bound and return the memory that stalled readers cost
- ``deadlines``      timers
- ``turns``          how busy connections and small ones share the loop
- ``watcher``        sockets that are no legs, in the loop of ``pump``
- ``zero_window``    tell a reader that pauses from a lost path, with TCP_INFO
- ``plain_leg``      make the death of this process a reset for the application
- ``kernel``         the kernel engine: stcp.ko relays the connection; the pump takes what the module refuses
- ``kernel_module``  the calls of that module
- ``kernel_abi``     the module's interface in numbers
- ``engine_choice``  choose the engine of a tunnel
"""
