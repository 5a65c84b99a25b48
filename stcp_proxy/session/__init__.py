"""One connection, from accept to the handover to an engine.

- ``listen``          the responder's side; ``connect`` the initiator's; ``handover`` the end that both have
- ``intercept``       a connection that rules of the host sent here; ``pass_through`` one that the file lets pass unencrypted
- ``proxy_header``    the PROXY header that a load balancer sends ahead of a connection
- ``client_address``  the address of the application's client, and the PROXY header that tells it to the target
- ``services``        the services of a listen tunnel, and which of them a peer gets
- ``original_target`` where a peer's client was going, dialled when the file allows it
- ``readiness``       whether a tunnel's far target answers, end to end
- ``record``          what is known of one connection, and its one log line
"""
