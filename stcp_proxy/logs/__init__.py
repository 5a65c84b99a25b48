"""Log lines of a process that serves.

- ``log``         set up the chain of processors, and change it at a reload
- ``output``      write lines without ever waiting for their reader
- ``classes``     the class of a line, which ``log.quiet`` silences
- ``rate_limit``  repeated lines, counted instead of written
"""
