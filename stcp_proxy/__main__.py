"""`python -m stcp_proxy`."""

from stcp_proxy.cli import main

main()
