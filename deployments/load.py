"""How loaded a backend is: what autoscaling goes by."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """What a backend has in hand now. `num_running` is worked on, `num_waiting` waits for room in
    the engine; `kv_use` is the share of the room for keys and values that is taken, 0 to 1, and 0
    where there is none to take."""

    num_running: int
    num_waiting: int = 0
    kv_use: float = 0.0

    def as_stats(self) -> dict[str, float]:
        """As Serve carries it from a replica to the autoscaler."""
        return {
            "num_running": float(self.num_running),
            "num_waiting": float(self.num_waiting),
            "kv_use": self.kv_use,
        }
