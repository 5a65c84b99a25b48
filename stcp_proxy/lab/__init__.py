"""The lab: tools that measure the product, and comparable proxies beside it, only through their public ports.

The extra stcp-proxy[lab] contains its libraries. No other package imports the lab, and the container image is built without it.

- ``load/``        load generator and echo server in C, compiled when first used; ``loadgen`` drives it
- ``echo``         the framed echo server
- ``stress``       the stress client, which checks every byte; ``channel`` lets it speak STCP itself
- ``bench``        this project and comparable proxies, measured in turns within the same minutes
- ``delay_relay``  a path with delay between the two sides of a pair
- ``ladder``       seal and open alone, frames in memory, the engine over socketpairs, the whole pair
- ``soak``         resident memory under mixed load
- ``reference``    the four runs of the report that was the starting point of this project

`stcp-proxy bench --report FILE` writes the results to a file.
"""
