"""Log lines of a serving process.

- ``log``         sets up the chain of processors, and changes it at a reload
- ``text``        lines for people
- ``output``      writes lines without waiting for their reader
- ``classes``     the class of a line, which ``log.quiet`` silences
- ``rate_limit``  counts repeated lines instead of writing them
"""
