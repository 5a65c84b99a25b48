"""Tests of stcp.ko itself, run inside a virtual machine by tests/kernel/run.

They talk to the module by its options and play application and peer on real sockets; frames are made and read by `peer`, an
implementation of the wire that shares no line with the product. tests/contract/ runs there too, with the kernel engine.

- ``peer``       the other end, and the options of the module
- ``run``        builds the module, boots a kernel, runs suites inside
- ``inside``     what runs inside
- ``abuse``      random abuse for the kernel with the checkers
- ``bench``      the measurements of docs/KERNEL.md
"""
