"""What tests of whole processes share.

- ``process``   a program in a process of its own, with its logs and its figures from /proc
- ``proxies``   the product's two commands, their key files, and a pair of them
- ``sockets``   blocking sockets with deadlines, and servers for a test's own target
- ``hosts``     two hosts and a wire between them, as network namespaces
- ``watch``     an eavesdropper on that wire
"""
