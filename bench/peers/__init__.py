"""Other ways to do the worker's work on Redis, each as its own documentation recommends it, apart from our environment.

One event: its raw text appended to the experiment's list and the list trimmed, its counter or gauge folded into the
experiment's hash (`bench.peers.work`), and the message acked. None keeps the guarantees of the worker: what is
redelivered is counted twice.

Each module is started by `bench.peers.harness` as a process of its own with the address of the server and the number of
events. It fills its queue by its own means, says "ready", works it off, and prints its figures.
"""
