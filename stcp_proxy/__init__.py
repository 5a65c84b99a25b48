"""stcp-proxy: plain TCP in, mutually authenticated and encrypted STCP/1 out.

The way through the package (imports point downwards only):

- ``cli``        parse, call, print
- ``tunnel``     one connection from accept to close; listeners; start and stop
- ``lab``        demo and measuring tools, which drive the product through its public ports
- ``net``        addresses, listening, dialling
- ``relay``      after the handshake: the engine interface and its engines
- ``protocol``   STCP/1 without I/O
- ``errors``     everything that can go wrong, and whose doing it was

docs/ARCHITECTURE.md follows a byte and a connection through these folders.
"""

__version__ = "0.1.0"
