"""Fuzzers of stcp-proxy: what they feed, what they check, and how they run. README.md beside this package says how to use them.

__main__.py   the command: run, list, replay, keep
table.py      all fuzzers, with the files that they build or import
build.py      builds the fuzzers in C (clang, libFuzzer), and the same harnesses without libFuzzer for the tests (gcc)
corpus.py     the seeds: one text file for each fuzzer
run.py        runs one fuzzer and reads its figures
python.py     the process of a fuzzer in Python (atheris)
choices.py    reads decisions from an input
harnesses/    one module for each fuzzer in Python: `one(data)` raises when a promise is broken
"""
