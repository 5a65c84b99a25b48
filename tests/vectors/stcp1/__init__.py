"""STCP/1 computed straight from docs/PROTOCOL.md, without the product's code.

- ``primitives``   seeded inputs, hashes, X25519, and the numbers of the specification
- ``handshakes``   section 1
- ``frames``       section 2
- ``contents``     plaintexts of frames, and orders of frame types
- ``kept_legs``    section 7
- ``credentials``  section 8
"""
