"""The admin address: show the state of a running proxy, reload it, stop it. docs/ADMIN.md tells users about it.

It knows nothing of tunnels but what ``host`` says; the command line brings the two together. Nothing here is imported where no
admin address is configured, and nothing here wakes up unless somebody asks.

- ``interface``      what the pages need of a running proxy
- ``status_schema``  the shape of `/status`, and how each field of it merges
- ``snapshot``       the report of this process, from live objects; ``snapshot_request`` what a reader wants of it
- ``live_bytes``     bytes of open connections
- ``key_removal``    whether a key can be removed
- ``report``         the report of a process, and how several are merged; ``worker_reports`` asks all workers in
  the JSON of ``codec``
- ``readiness``      whether the proxy is ready, end to end where a tunnel wants that
- ``metrics``        a report as Prometheus reads it; ``loop_delay`` measures the event loop; ``cooperate`` parts long work
- ``access``         who may ask: token, host, origin; ``rate_limit`` how much of the loop all requests may take;
  ``source_limit`` what one source may
- ``http_app``       the addresses, as a Starlette application
- ``dashboard``      the dashboard: its files, as they are in ``assets/``
- ``server``         serves them on Hypercorn, inside the proxy's own loop
- ``client``         asks a running proxy, for the commands; ``terminal_table`` shows its status at a terminal
- ``wait``           waits until a proxy is ready
"""
