"""Shared parts of the tests of whole processes.

- ``process``   a program in a separate process, with its logs and its figures from /proc
- ``proxies``   the two commands of the product, their key files, and a pair of proxies
- ``sockets``   blocking sockets with deadlines, and servers as targets
- ``hosts``     two hosts and the wire between them, as network namespaces
- ``watch``     an eavesdropper on that wire
"""
