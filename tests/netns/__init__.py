"""The product between two hosts, each a network namespace of its own."""
