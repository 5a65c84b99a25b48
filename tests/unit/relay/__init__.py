"""The relay: engines, one connection, and the fast path in C."""
