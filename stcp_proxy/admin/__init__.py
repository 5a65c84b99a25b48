"""The admin address: show the state of a running proxy, reload it, stop it. docs/ADMIN.md describes it for users.

This package knows a process only through ``interface.Host``; the command line connects the two. Without an admin address nothing
here is imported. With one, the first worker process takes a report every ten seconds.

- ``interface``      what the package requires of a running proxy
- ``status_schema``  the shape of `/status`, and how each field of it merges; ``process_schema`` its part about the process
- ``snapshot``       the report of this process, from live objects; ``snapshot_request`` is the request for one;
                     ``certificate_snapshot`` and ``certificate_schema`` are the part about certificates
- ``live_bytes``     bytes of open connections
- ``key_removal``    whether a key can be removed; ``certificate_removal`` answers it for certificates
- ``report``         the report of a process, and the merging of several reports; ``worker_reports`` collects them from all worker
                     processes in the JSON of ``codec``
- ``faults``         what is wrong, found in a report; ``fault_log`` knows since when, and makes the verdict (``verdict_schema``)
- ``history``        the last hour of every tunnel
- ``readiness``      whether the proxy is ready; for `ready: target` end to end
- ``metrics``        a report in the format of Prometheus; ``loop_delay`` measures the event loop; ``cooperate`` splits long work
- ``shared_report``  one report for all probes of half a second
- ``access``         access control: token, host, origin; ``rate_limit`` bounds the loop time of all requests, ``source_limit``
                     the requests of one source
- ``http_app``       the addresses, as a Starlette application
- ``dashboard``      the dashboard: its files, as they are in ``assets/``
- ``server``         serves them on Hypercorn, inside the proxy's own loop; ``client_stream`` is a client's connection,
                     ``probe_request`` answers simple probes without Hypercorn
- ``client``         asks a running proxy, for the commands
- ``terminal_table`` its status at a terminal: ``terminal_verdict``, tables, figures in words (``terminal_text``), and again and
                     again (``terminal_watch``); ``terminal_certificates`` lists certificates, ``terminal_layout`` is
                     common to all lists
- ``wait``           waits until a proxy is ready
"""
