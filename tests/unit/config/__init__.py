"""From a file and from flags to a plan."""
