"""Whether a credential vouches for a peer. No I/O and no clock: the caller gives the time.

- ``names``        names of certificates, and patterns that match them
- ``binding``      the signature that binds a Noise static key to a certificate
- ``authority``    certificate authorities
- ``certificate``  rules for one certificate: kind, purpose, constraints
- ``issuer``       what is read once of a certificate of an authority
- ``path``         the chain of certificates from a leaf to an authority
- ``revocation``   revoked keys, serial numbers and revocation lists
- ``verifier``     all of it in order, with a bounded memory of verified credentials
"""
