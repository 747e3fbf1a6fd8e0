"""
The benchmarks: ``python -m benchmarks --help``.

`tables` has all tables, `harness` their parts. Each subject of a table is a process of its own (`worker`), and
`turns` lets them measure one after the other.
"""
