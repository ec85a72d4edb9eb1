# Scripts, run by name; some only under a Python that has lava-dl.
collect_ignore = [
    "bench_lava_dl.py",
    "check_netx.py",
    "lava_dl_worker.py",
    "netx_worker.py",
    "snnzoo_worker.py",
    "workload.py",
]
