"""Redis Agent: metric events of running experiments become exact aggregates and alerts worth reading.

The way of the data:

    publishers --PUBLISH--> fullsend:metrics
                                 |
       bridge                    v           one leader writes, under a lease that fences late writes
                     stream  fullsend:metrics:stream          durable, replayable, trimmed safely
                                 |
       worker x N                v           XREADGROUP (and XAUTOCLAIM), fold the batch, one atomic script a batch
            metrics_aggregated:{id}   metrics:{id}   error alerts
                                 |
       judge                     v           criteria on the values that the script returned
                     stream  fullsend:alerts                  the outbox: cooldown + alert, one atomic script
                                 |
       dispatcher                v           delivers when somebody listens, acks when received
                     PUBLISH fullsend:to_orchestrator

       scheduler (one leader): threshold sweep, summaries, trimming, clean-up of dead consumers
       endpoint: /metrics /healthz /readyz

`app.py` puts the roles together; `cli/` is what people type. Nothing is imported here, so that
`redis-agent --help` stays quick.
"""

__version__ = "0.2.0"
