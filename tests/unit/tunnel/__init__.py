"""A tunnel: admission, the connections it carries, and its routes."""
