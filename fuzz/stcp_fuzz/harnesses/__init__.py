"""One module for each fuzzer in Python. `one(data)` runs one input and raises when a promise is broken."""
