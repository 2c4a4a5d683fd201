"""One contender in a process of its own: `python -m benchmarks.huggingface.worker NAME CHECKPOINT`.

It does the work once for every line that it reads, and answers each with a line of JSON; it ends
with its input.
"""

import json
import sys
import time
from pathlib import Path

from benchmarks.huggingface import stall as hf_stall
from benchmarks.huggingface.contenders import Contender, Work, contender
from benchmarks.huggingface.work import requests

NUM_WARM_UP_TOKENS = 8


def main() -> None:
    name, checkpoint = sys.argv[1], Path(sys.argv[2])
    subject, tokenizer = contender(name, checkpoint)
    work = [(tuple(tokenizer(r.prompt)["input_ids"]), r.num_tokens) for r in requests()]
    subject.run([(prompt, NUM_WARM_UP_TOKENS) for prompt, _ in work])
    _answer({"ready": name})
    try:
        for line in sys.stdin:
            if line.strip() == "stall":
                _answer(hf_stall.measure(checkpoint))
            else:
                _answer(_run(subject, work))
    finally:
        subject.stop()


def _run(subject: Contender, work: Work) -> dict[str, float]:
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    num_tokens = subject.run(work)
    cpu_s = time.process_time() - began_cpu_s
    return {"num_tokens": num_tokens, "wall_s": time.perf_counter() - began_s, "cpu_s": cpu_s}


def _answer(what: object) -> None:
    print("\n" + json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
