"""One connection, from accept to the handover to an engine.

- ``listen``          the responder's side; ``connect`` the initiator's; ``handover`` the end that both have
- ``access_rule``     the access rule of a session, which a reload may replace before OPEN
- ``intercept``       an intercepted connection; ``pass_through`` one that the file lets pass unencrypted
- ``new_leg``         the handshake that makes a wire leg of a connect tunnel
- ``peer_leg``        a wire leg that carries several connections, one after the other; ``first_accepted`` asks on two legs,
  ``ready_leg`` makes an idle leg before a connection needs it
- ``proxy_header``    the PROXY header that a load balancer sends ahead of a connection
- ``client_address``  the address of the application's client, and the PROXY header that tells it to the target
- ``services``        the services of a listen tunnel, and which of them a peer gets
- ``original_target`` the destination of a peer's client, dialled when the file allows it
- ``readiness``       the readiness check: whether a tunnel's far target answers, end to end
- ``record``          the record of one connection, and its one log line; ``span`` what its span is made of
"""
