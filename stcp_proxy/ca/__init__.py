"""A small certificate authority for those who have none: `stcp-proxy ca`.

- ``profile``         the certificates and the revocation list that an authority signs; no I/O
- ``encrypted_key``   a private key as PEM text, encrypted with a passphrase
- ``folder``          the files of an authority: create, issue, revoke
- ``description``     a certificate, a revocation list or an authority as text
"""
