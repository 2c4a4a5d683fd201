"""The client before everything else on the machine, as if it had a machine of its own.

An engine that waits in a loop fills its cores, and Linux lets a client of another session wait for
hundreds of milliseconds, whole streams long. What it would then time is its own wait.
"""

import os


def client_first() -> bool:
    """Puts this thread before all ordinary ones, without its children. Whether that is allowed."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError:
        return False
    return True
