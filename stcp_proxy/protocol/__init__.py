"""STCP/1 without I/O: bytes in, results or bytes out. No sockets, clocks or logging.

Numbers and types
- ``wire``                 every number of the format
- ``secret``               the type of keys and shared secrets

Handshake
- ``symmetric``            Noise: CipherState and SymmetricState
- ``patterns``             Noise: the handshake patterns as data
- ``noise``                Noise: key pairs and HandshakeState
- ``suites``               pattern and keys of each suite
- ``prologue``             the prologue, and the length before each message
- ``handshake``            suites 1 to 4 and 6: Initiator and Responder
- ``credential``           the credential of suite 5: format and bounds
- ``certified_handshake``  suite 5: CertifiedInitiator and CertifiedResponder
- ``responder_choice``     a listening side that accepts suites of both handshakes
- ``established``          the result of a handshake

Frames
- ``frames``               Sealer and Opener: key, counter and rekey of one direction
- ``lifecycle``            which frame may follow which in one connection
- ``leg``                  a wire leg that carries several connections
- ``opening``              contents of OPEN, ACCEPT, REJECT and RESET

Messages
- ``greeting``             names of other protocols by their first bytes
"""
