"""Sockets: addresses, listening, dialling, tuning, and a thin stream over a socket."""
