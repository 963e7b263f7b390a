"""The front door: the ``pactolus`` command and nothing else."""
