"""The engine contract: what every relay engine must do, seen from the two sockets it is given.

Nothing here knows how an engine works. A test plays the application on one TCP socket and either plays the peer itself, with a
`Sealer` and an `Opener` (`Rig`: what exactly stands on the wire), or puts a second engine there (`Pair`: what the application at
the other end sees). Engines are chosen by the environment:

    STCP_ENGINES=python                            the default
    STCP_ENGINES=python,kernel,python+kernel       one-ended tests run on python and on kernel, two-ended ones on python with
                                                   itself, kernel with itself, and python on one side with kernel on the other

``+`` names the two sides of a two-ended test; a name alone stands for itself on both sides. An engine that is named and cannot
start is a failure, not a skip.

- ``legs``       sockets, and what a test sends and reads through them
- ``harness``    the test's own peer, rigs
- ``conftest``   the fixtures: engine, rig, pair
"""
