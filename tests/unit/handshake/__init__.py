"""The handshake and the opening of a connection, over memory streams."""
