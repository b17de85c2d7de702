"""What happens to messages, decided synchronously: no I/O, no clock, no waiting, standard library only."""
