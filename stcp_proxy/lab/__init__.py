"""The lab: what shows and measures the product, through its public ports.

- ``demo``   both proxies, a server, a client and an eavesdropper on this machine
"""
