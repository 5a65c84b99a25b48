"""STCP/1 without I/O: bytes in, events or bytes out. No sockets, clocks or logging.

- ``wire``       every number of the format
- ``secret``     the type of everything that must not be seen
- ``noise``      the Noise Protocol Framework, revision 34, as far as the suites need it
- ``handshake``  the STCP handshake around it: Initiator and Responder
- ``frames``     Sealer and Opener: one direction's key, counter and rekey
- ``lifecycle``  which frame may follow which
- ``opening``    the contents of OPEN, ACCEPT, REJECT and RESET
"""
