"""Where connections go: targets, the endpoints behind them, and a connection's attempts at them.

- ``targets``       the targets of a tunnel; ``endpoint`` one address of a target and its health
- ``attempt``       one connection's way through the endpoints; ``balance`` their order
- ``health_check``  checks whether an endpoint answers, without a connection of an application
- ``routes``        where an intercepted connection goes; ``route_names`` the addresses of routes by name
"""
