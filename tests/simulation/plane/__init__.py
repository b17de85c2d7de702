"""The control plane in virtual time: its engine, its links to the queue and its workers' attempts are the real ones;
the queue, the network and the disk are simulated. `python -m tests.simulation --plane --seed N` runs one."""
