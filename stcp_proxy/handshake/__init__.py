"""Handshake and opening over any stream, and the trust that decides them.

- ``exchange``      handshake, OPEN and its answer, up to the handover
- ``authenticate``  the initiator's handshake, for a session or a health check
- ``key_order``     which of several keys a connect tunnel tries first
- ``trust``         who may talk to whom, and which connections a new rule no longer covers
"""
