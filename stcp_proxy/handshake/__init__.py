"""Handshake and opening over any stream, and the trust that decides them.

- ``exchange``      handshake, OPEN and its answer, up to the handover
- ``authenticate``  the initiator's handshake, key by key, for sessions and checks
- ``key_order``     which of several keys a connect tunnel tries first
- ``trust``         access rules, and the connections that a new rule no longer covers; ``certified`` those by certificate
"""
