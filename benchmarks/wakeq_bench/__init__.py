"""What polling costs and what waiting costs, measured: the ``wakeq bench`` command."""
