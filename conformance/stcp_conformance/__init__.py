"""Conformance kit of STCP/1: named cases that speak to an implementation over TCP, in both roles.

suites, noise, frames, credential    the protocol, written from docs/PROTOCOL.md for this kit alone
vectors                              checks a file of test vectors with that code
config, program                      the implementation under test: how it is started and what it is told
sockets, wire, bench                 the two ends that the kit plays: the other proxy and the application
registry, cases                      the cases
report                               the result as text and JSON
"""
