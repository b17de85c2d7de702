"""The engine in virtual time: many clients, any interleaving, a disk that fails and a server that crashes, all from one
seed. `python -m tests.simulation --seed N` runs one; docs/decisions/simulation.md says how it works."""
