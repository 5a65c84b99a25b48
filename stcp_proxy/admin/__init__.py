"""The admin address: look into a proxy that runs, and tell it to stop. docs/ADMIN.md tells users about it.

It knows nothing of tunnels but what ``host`` says; the command line brings the two together. Nothing here is imported where no
admin address is configured, and nothing here wakes up unless somebody asks.

- ``host``      what the pages need of a running proxy
- ``status``    the shape of `/status`: one look at it
- ``look``      takes that look; ``meter`` reads bytes, ``measure`` what is counted beyond the status
- ``rings``     can this key go?
- ``report``    what a process tells, and how several processes' are put together; ``gather`` asks them
- ``readiness`` whether the proxy is ready, end to end where a tunnel wants that
- ``metrics``   a report as Prometheus reads it; ``lag`` measures the event loop
- ``guard``     who may ask: token, host, origin; ``pace`` how much of the event loop all of them may have
- ``pages``     the addresses, as a Starlette application
- ``page``      the dashboard: its files, as they are in ``assets/``
- ``server``    serves them on Hypercorn, inside the proxy's own loop
- ``client``    asks a running proxy, for the commands; ``view`` shows its status at a terminal
- ``life``      waits for one
"""
