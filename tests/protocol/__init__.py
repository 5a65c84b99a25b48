"""The protocol without I/O, against outside vectors, an independent implementation, our own vectors, and every wrong input."""
