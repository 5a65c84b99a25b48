"""Spans of connections for a collector of OpenTelemetry: `otlp` in the file.

In the process that serves:

- ``sink``       where the records of this process go
- ``channel``    the bounded channel to the exporter: it never waits; what does not fit is dropped and counted
- ``counts``     how many spans were exported and lost, in memory that both processes share

In the exporter, a program beside it (`stcp_proxy.process.span_exporter` starts it):

- ``exporter``   its loop: take records, make batches, send them, end
- ``span``       the span of one record, by OpenTelemetry's conventions
- ``collector``  one request to the collector, and the meaning of its answer

``orders`` is what the one tells the other: the settings. The exporter alone imports OpenTelemetry's and Google's libraries.
"""
